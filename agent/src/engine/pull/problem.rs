//! What the engines' words about a failed pull mean, and what a person can do about it.

use std::fmt;

/// Why an image did not come, as far as a person can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullProblem {
    NotFound,
    /// It may not be pulled, and it is not there.
    NotLocal,
    /// The registry has the repository, and nothing of that digest in it.
    NoSuchDigest,
    /// What the registry gave is not what the digest promises.
    DigestMismatch,
    Unauthorized,
    NoSuchHost,
    ConnectionRefused,
    Unreachable,
    Tls,
    RateLimited,
    DiskFull,
    WrongPlatform,
    TimedOut,
    BrokenStream,
    Other,
}

impl PullProblem {
    /// Reads the engine's words. The order matters: Docker says "pull access denied … repository
    /// does not exist or may require 'docker login'" for an image that does not exist.
    pub fn of(message: &str) -> PullProblem {
        let message = message.to_ascii_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
        if says(&["toomanyrequests", "rate limit", "too many requests"]) {
            return PullProblem::RateLimited;
        }
        if says(&["no space left on device", "disk quota exceeded"]) {
            return PullProblem::DiskFull;
        }
        if says(&["manifest verification failed", "does not match provided manifest digest"]) {
            return PullProblem::DigestMismatch;
        }
        if says(&["no matching manifest", "no image found in image index for architecture"]) {
            return PullProblem::WrongPlatform;
        }
        if says(&[
            "x509:",
            "tls:",
            "server gave http response to https client",
            "certificate",
            "corrupt message",
        ]) {
            return PullProblem::Tls;
        }
        if says(&[
            "no such host",
            "server misbehaving",
            "name resolution",
            "lookup address",
            "not resolve",
        ]) {
            return PullProblem::NoSuchHost;
        }
        if says(&["connection refused"]) {
            return PullProblem::ConnectionRefused;
        }
        if says(&["network is unreachable", "no route to host", "host is unreachable"]) {
            return PullProblem::Unreachable;
        }
        if says(&[
            "i/o timeout",
            "deadline exceeded",
            "client.timeout",
            "handshake timeout",
            "timed out",
        ]) {
            return PullProblem::TimedOut;
        }
        if says(&["no basic auth credentials", "unauthorized", "authentication required"]) {
            return PullProblem::Unauthorized;
        }
        if says(&[
            "manifest unknown",
            "not found",
            "does not exist",
            "name unknown",
            "no such image",
        ]) {
            return PullProblem::NotFound;
        }
        if says(&["denied", "403 forbidden"]) {
            return PullProblem::Unauthorized;
        }
        if says(&[
            "eof",
            "connection reset",
            "broken pipe",
            "incomplete",
            "short read",
            "filesystem layer verification failed",
        ]) {
            return PullProblem::BrokenStream;
        }
        PullProblem::Other
    }

    pub fn code(self) -> &'static str {
        match self {
            PullProblem::NotFound => "image_not_found",
            PullProblem::NotLocal => "image_not_local",
            PullProblem::NoSuchDigest => "image_digest_unknown",
            PullProblem::DigestMismatch => "image_digest_mismatch",
            PullProblem::Unauthorized => "registry_unauthorized",
            PullProblem::NoSuchHost => "registry_name_unknown",
            PullProblem::ConnectionRefused => "registry_refused_connection",
            PullProblem::Unreachable => "registry_unreachable",
            PullProblem::Tls => "registry_tls",
            PullProblem::RateLimited => "registry_rate_limited",
            PullProblem::DiskFull => "disk_full",
            PullProblem::WrongPlatform => "image_wrong_platform",
            PullProblem::TimedOut => "registry_timed_out",
            PullProblem::BrokenStream => "pull_broken",
            PullProblem::Other => "pull_failed",
        }
    }

    /// What goes away by itself: networks, names and registries that are still coming up.
    pub fn is_retriable(self) -> bool {
        match self {
            PullProblem::NoSuchHost
            | PullProblem::ConnectionRefused
            | PullProblem::Unreachable
            | PullProblem::RateLimited
            | PullProblem::TimedOut
            | PullProblem::BrokenStream
            | PullProblem::Other => true,
            PullProblem::NotFound
            | PullProblem::NotLocal
            | PullProblem::NoSuchDigest
            | PullProblem::DigestMismatch
            | PullProblem::Unauthorized
            | PullProblem::Tls
            | PullProblem::DiskFull
            | PullProblem::WrongPlatform => false,
        }
    }

    /// What the person who wrote the document can do.
    pub fn advice(self) -> &'static str {
        match self {
            PullProblem::NotFound => "check the image's name and tag",
            PullProblem::NotLocal => {
                "preload it on the instance, or leave pull_policy out so that it is pulled"
            }
            PullProblem::NoSuchDigest => {
                "check the digest after the `@`; the tag before it is not looked at"
            }
            PullProblem::DigestMismatch => {
                "somebody has changed the image on the registry or on the way: do not use it, or pin the digest that you mean"
            }
            PullProblem::Unauthorized => {
                "the registry wants credentials for this image: check username and password in `registries`"
            }
            PullProblem::NoSuchHost => {
                "the instance cannot resolve the registry's name: check the name, and the network's DNS"
            }
            PullProblem::ConnectionRefused => {
                "nothing answers at the registry's address: check host and port"
            }
            PullProblem::Unreachable => {
                "the instance has no route to the registry: check the network, or preload the image"
            }
            PullProblem::Tls => {
                "the registry's certificate is not trusted here, or it speaks plain HTTP: give `ca` or `insecure` in `registries`"
            }
            PullProblem::RateLimited => {
                "the registry limits how much is pulled: wait, log in, or use a mirror"
            }
            PullProblem::DiskFull => "the instance's disk is full: use a larger flavor or volume",
            PullProblem::WrongPlatform => "the image has no variant for this instance's processor",
            PullProblem::TimedOut => {
                "the registry answers too slowly or not at all: check network and firewall"
            }
            PullProblem::BrokenStream => "the connection to the registry broke while pulling",
            PullProblem::Other => "see the engine's message",
        }
    }
}

impl fmt::Display for PullProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PullProblem::NotFound => "image not found",
            PullProblem::NotLocal => "image is not on this instance",
            PullProblem::NoSuchDigest => "registry has no image of this digest",
            PullProblem::DigestMismatch => "image does not have its digest",
            PullProblem::Unauthorized => "registry refused access",
            PullProblem::NoSuchHost => "registry's name is unknown",
            PullProblem::ConnectionRefused => "registry refused the connection",
            PullProblem::Unreachable => "registry is unreachable",
            PullProblem::Tls => "no secure connection to the registry",
            PullProblem::RateLimited => "registry's rate limit is reached",
            PullProblem::DiskFull => "disk is full",
            PullProblem::WrongPlatform => "image is for another processor",
            PullProblem::TimedOut => "registry did not answer in time",
            PullProblem::BrokenStream => "connection to the registry broke",
            PullProblem::Other => "engine could not pull",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_are_understood() {
        let check = |message: &str, expect: PullProblem| {
            assert_eq!(PullProblem::of(message), expect, "{message}");
        };
        // As Docker 20.10 says it.
        check(
            "pull access denied for nope, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            PullProblem::NotFound,
        );
        check(
            "manifest for 127.0.0.1:5000/a:9 not found: manifest unknown: manifest unknown",
            PullProblem::NotFound,
        );
        check(
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            PullProblem::ConnectionRefused,
        );
        check(
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host",
            PullProblem::NoSuchHost,
        );
        check(
            "Head \"http://127.0.0.1:5000/v2/a/manifests/1\": no basic auth credentials",
            PullProblem::Unauthorized,
        );
        check("unauthorized: authentication required", PullProblem::Unauthorized);
        check("toomanyrequests: You have reached your pull rate limit.", PullProblem::RateLimited);
        check("write /var/lib/docker/tmp/x: no space left on device", PullProblem::DiskFull);
        check(
            "Get \"https://r/v2/\": x509: certificate signed by unknown authority",
            PullProblem::Tls,
        );
        check(
            "Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client",
            PullProblem::Tls,
        );
        check(
            "no matching manifest for linux/arm64/v8 in the manifest list entries",
            PullProblem::WrongPlatform,
        );
        check(
            "Get \"https://r/v2/\": net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
            PullProblem::TimedOut,
        );
        check(
            "Get \"https://r/v2/\": dial tcp 192.0.2.1:443: connect: network is unreachable",
            PullProblem::Unreachable,
        );
        check("unexpected EOF", PullProblem::BrokenStream);
        check(
            "filesystem layer verification failed for digest sha256:00",
            PullProblem::BrokenStream,
        );
        check("error creating overlay mount", PullProblem::Other);
        check("manifest verification failed for digest sha256:00", PullProblem::DigestMismatch);
        check(
            "initializing source docker://r/a@sha256:00: Manifest does not match provided manifest digest sha256:00",
            PullProblem::DigestMismatch,
        );
        // As our own client says it.
        check(
            "r:1 did not answer: client error (Connect): invalid peer certificate: UnknownIssuer",
            PullProblem::Tls,
        );
        check(
            "r:1 did not answer: client error (Connect): received corrupt message of type InvalidContentType",
            PullProblem::Tls,
        );
        check(
            "r did not answer: client error (Connect): dns error: failed to lookup address information: Name does not resolve",
            PullProblem::NoSuchHost,
        );
        // As Podman 4.3 says it.
        check(
            "initializing source docker://127.0.0.1:5000/a:9: reading manifest 9 in 127.0.0.1:5000/a: manifest unknown: manifest unknown",
            PullProblem::NotFound,
        );
        check(
            "initializing source docker://r/a:1: Requesting bear token: invalid status code from registry 403 (Forbidden): denied: requested access to the resource is denied",
            PullProblem::Unauthorized,
        );
    }
}

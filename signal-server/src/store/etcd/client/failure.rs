//! What went wrong with a call.

use tonic::{Code, ConnectError, Status};

/// What a failure says about the member, and about the change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection: nothing was sent.
    Unreachable,
    /// The member does nothing at present, and has done nothing.
    NoLeader,
    /// The member does not know us, and has done nothing.
    BadToken,
    /// The member is well and says no.
    Answer,
    /// Nobody knows what became of it.
    Unknown,
}

impl Failure {
    pub(crate) fn of(status: &Status) -> Failure {
        let text = status.message();
        if has_no_connection(status) {
            return Failure::Unreachable;
        }
        if text.starts_with("etcdserver: no leader") {
            return Failure::NoLeader;
        }
        let is_bad_token = status.code() == Code::Unauthenticated
            || text.starts_with("etcdserver: revision of auth store is old");
        if is_bad_token {
            return Failure::BadToken;
        }
        match status.code() {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::NotFound
            | Code::Unimplemented
            | Code::DataLoss => Failure::Answer,
            _ => Failure::Unknown,
        }
    }
}

fn has_no_connection(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_had_no_effect_is_called_so() {
        for (code, message, expect) in [
            (Code::Unavailable, "etcdserver: no leader", Failure::NoLeader),
            (Code::Unavailable, "etcdserver: request timed out", Failure::Unknown),
            (Code::Unavailable, "etcdserver: leader changed", Failure::Unknown),
            (Code::DeadlineExceeded, "no answer in time", Failure::Unknown),
            (Code::Unknown, "transport error", Failure::Unknown),
            (Code::Cancelled, "", Failure::Unknown),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Failure::BadToken),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Failure::Answer),
            (Code::PermissionDenied, "etcdserver: permission denied", Failure::Answer),
        ] {
            assert_eq!(Failure::of(&Status::new(code, message)), expect, "{message}");
        }
    }
}

//! Certificates made for one scene, with the openssl program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A root in a directory, and what it has signed: `ca.pem`, and for each name `NAME.pem` and `NAME.key`.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Makes the root.
    pub fn make(directory: &Path) -> Result<Authority> {
        std::fs::create_dir_all(directory)?;
        let authority = Authority { directory: directory.to_owned() };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=scene root",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ])?;
        Ok(authority)
    }

    /// Makes a certificate for 127.0.0.1, for servers and clients alike, in the place of the one that had
    /// this name before.
    pub fn sign(&self, name: &str) -> Result<()> {
        self.sign_for(name, "IP:127.0.0.1")
    }

    /// Likewise for others, such as `DNS:a.example,DNS:b.example`.
    pub fn sign_for(&self, name: &str, whom: &str) -> Result<()> {
        let whom = format!("subjectAltName={whom}");
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let (subject, certificate) = (format!("/CN={name}"), format!("{name}.pem"));
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &subject,
            "-addext",
            &whom,
            "-keyout",
            &key,
            "-out",
            &request,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-days",
            "2",
            "-copy_extensions",
            "copy",
            "-out",
            &certificate,
        ])
    }

    /// One of the files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .context("failed to run openssl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {}: {said}", arguments.join(" "));
        Ok(())
    }
}

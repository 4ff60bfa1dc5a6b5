//! Keys that other tools have and that are refused here, with what to do instead.

/// Refused in a service, and in a document that is one.
pub(crate) const REFUSED_KEYS: &[(&str, &str)] = &[
    ("build", "an instance builds no images; give an `image`"),
    ("extends", "write the keys out"),
    ("include", "write the services out"),
    ("develop", "remove it"),
    ("credential_spec", "remove it"),
    ("isolation", "remove it"),
    ("provider", "remove it"),
    ("models", "remove it"),
    ("use_api_socket", "a container must not control the engine"),
    ("cpu_count", "write `cpus`"),
    ("cpu_percent", "write `cpus`"),
    ("label_file", "write the labels under `labels`"),
    ("post_start", "remove it, or let a second service do it"),
    ("pre_stop", "remove it, or let the command catch its stop signal"),
    ("packages", "this is a cloud-init key; an image brings its own packages"),
    ("runcmd", "this is a cloud-init key; write a `cmd`"),
    ("write_files", "this is a cloud-init key; write `files`"),
];

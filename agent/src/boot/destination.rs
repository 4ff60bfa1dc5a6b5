//! Whom a document wants to be told, and by which way: from its own words to those of `signal`.

use crate::signal::ways::Way;
use crate::signal::{Handle, HandleError, Spelling};
use crate::userdata::document::{SignalSection, SignalStyle, SignalTarget, SignalTransport};

/// Where a signal goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Destination {
    /// None: whoever knows the instance by itself, else only the console.
    pub(crate) handle: Option<Handle>,
    /// None: nothing is sent at all.
    pub(crate) way: Option<Way>,
}

impl Destination {
    pub(crate) fn of(section: &SignalSection) -> Result<Destination, HandleError> {
        let way = match section.transport {
            SignalTransport::Auto => Way::Any,
            SignalTransport::Metadata => Way::Metadata,
            SignalTransport::Cfn
            | SignalTransport::Heat
            | SignalTransport::TempUrl
            | SignalTransport::Relay => Way::Direct,
            SignalTransport::Password => Way::PasswordSlot,
            SignalTransport::Console => return Ok(Destination::default()),
        };
        let handle = handle(section.target.as_ref())?.map(|handle| match section.style {
            SignalStyle::Auto => handle,
            SignalStyle::Aws => handle.spelled(Spelling::CloudFormation),
            SignalStyle::Heat => handle.spelled(Spelling::Heat),
        });
        let handle = match way {
            // The slot belongs to the instance, whatever handle there is.
            Way::PasswordSlot => Some(Handle::Instance),
            // Whoever asks for this way wants to know if nobody is there.
            Way::Metadata => handle.or(Some(Handle::Instance)),
            Way::Any | Way::Direct => handle,
        };
        Ok(Destination { handle, way: Some(way) })
    }

    /// That of a document that cannot be read.
    pub(crate) fn of_target(target: Option<&SignalTarget>) -> Result<Destination, HandleError> {
        Ok(Destination { handle: handle(target)?, way: Some(Way::Any) })
    }
}

fn handle(target: Option<&SignalTarget>) -> Result<Option<Handle>, HandleError> {
    match target {
        None => Ok(None),
        Some(SignalTarget::Url(url)) => Handle::from_url(url.as_str()).map(Some),
        Some(SignalTarget::Json(json)) => Handle::from_json(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata;

    #[test]
    fn the_document_decides_where_a_signal_goes() {
        let check = |signal: &str, expect: (Option<&str>, Option<Way>)| {
            let text = format!("#docker\nimage: a\nsignal: {signal}\n");
            let document =
                userdata::load(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            let destination = Destination::of(&document.signal).unwrap();
            let kind = destination.handle.as_ref().map(Handle::kind);
            assert_eq!((kind, destination.way), expect, "{signal}");
        };
        let temp_url = "\"http://r/v1/AUTH_a/c/o?temp_url_sig=1\"";
        check(temp_url, (Some("put"), Some(Way::Any)));
        check("{when: running}", (None, Some(Way::Any)));
        check("{transport: metadata}", (Some("instance"), Some(Way::Metadata)));
        check("{transport: password}", (Some("instance"), Some(Way::PasswordSlot)));
        check("{transport: none}", (None, None));
        let with = |keys: &str| format!("{{url: {temp_url}, {keys}}}");
        check(&with("transport: tempurl"), (Some("put"), Some(Way::Direct)));
        check(&with("transport: metadata"), (Some("put"), Some(Way::Metadata)));
        check(&with("transport: password"), (Some("instance"), Some(Way::PasswordSlot)));
        check(&with("transport: console"), (None, None));
        let token = "{endpoint: \"http://h/signal\", token: t, transport: heat, when: exit}";
        check(token, (Some("heat_token"), Some(Way::Direct)));
    }

    #[test]
    fn the_document_decides_how_a_signal_is_spelled() {
        let check = |style: &str, expect: Spelling| {
            let presigned = "http://h/v1/waitcondition/arn?Signature=1";
            let text =
                format!("#docker\nimage: a\nsignal: {{url: \"{presigned}\", style: {style}}}\n");
            let document = userdata::load(text.as_bytes()).unwrap();
            let handle = Destination::of(&document.signal).unwrap().handle;
            let spelling = match handle {
                Some(Handle::Put { spelling, .. }) => Some(spelling),
                _ => None,
            };
            assert_eq!(spelling, Some(expect), "{style}");
        };
        check("auto", Spelling::Either);
        check("aws", Spelling::CloudFormation);
        check("heat", Spelling::Heat);
    }
}

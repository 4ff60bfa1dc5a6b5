//! A Compose file: our form already, but for what only a machine with its directory around it has.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::forms::{entries_of, map};
use crate::userdata::schema::refused::REFUSED_KEYS;
use crate::userdata::yaml::{Content, Entry, Node};

/// Leaves out what has no meaning on an instance, and says so. `build` beside an `image` goes; what
/// would change the meaning stays, and is refused when the document is read.
pub(crate) fn to_document(root: &Node, context: &mut Context) -> Result<Node, Diagnostic> {
    let mut kept = Vec::new();
    for one in entries_of("the document", root)? {
        if one.key == "version" || one.key == "name" || one.key.starts_with("x-") {
            continue;
        }
        let mut one = one.clone();
        if one.key == "services"
            && let Content::Map(services) = &mut one.value.content
        {
            for service in services {
                clean(service, context);
            }
        }
        kept.push(one);
    }
    Ok(map(kept, root.position))
}

fn clean(service: &mut Entry, context: &mut Context) {
    let has_image = service.value.get("image").is_some();
    let Content::Map(entries) = &mut service.value.content else { return };
    entries.retain(|one| {
        let is_droppable = one.key.starts_with("x-")
            || one.key == "develop"
            || one.key == "isolation"
            || (one.key == "build" && has_image);
        if is_droppable && REFUSED_KEYS.iter().any(|(name, _)| *name == one.key) {
            let message = format!("{} was left out", quote_key(&one.key));
            context.warn("left_out", one.key_position, message);
        }
        !is_droppable
    });
}

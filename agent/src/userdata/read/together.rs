//! `depends_on`.

use crate::userdata::access::Condition;
use crate::userdata::diagnostic::Diagnostic;
use crate::userdata::fields::Fields;
use crate::userdata::read::network::is_name;
use crate::userdata::read::plain::{entries, list};
use crate::userdata::scalar::{bad, flag, text, word};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::DEPENDENCY;
use crate::userdata::value::DependsOn;
use crate::userdata::yaml::{Content, Node};

const CONDITIONS: [(&str, Condition); 3] = [
    ("service_started", Condition::Started),
    ("service_healthy", Condition::Healthy),
    ("service_completed_successfully", Condition::CompletedSuccessfully),
];

/// A list of services, or a map of services to conditions.
pub(super) fn depends_on(label: &str, node: &Node) -> Result<Vec<DependsOn>, Diagnostic> {
    let name = |name: &str, node: &Node| {
        let is_good = is_name(name).then(|| name.to_owned());
        is_good.ok_or_else(|| bad("bad_name", label, node, "names of services"))
    };
    let mut others: Vec<DependsOn> = Vec::new();
    if let Content::List(_) = node.content {
        for item in list(label, node, Kind::DependsOn.shape())? {
            let service = name(text(label, item, "a name")?, item)?;
            if others.iter().any(|other| other.service == service) {
                let message = "`depends_on` names one service twice";
                return Err(Diagnostic::new("duplicate_key", item.position, message));
            }
            others.push(DependsOn { service, condition: Condition::Started, required: true });
        }
        return Ok(others);
    }
    for entry in entries(label, node, Kind::DependsOn.shape())? {
        let service = name(&entry.key, &entry.value)?;
        let mut other = DependsOn { service, condition: Condition::Started, required: true };
        if !entry.value.is_null() {
            let fields = Fields::of("an entry of `depends_on`", &entry.value, DEPENDENCY.keys)?;
            if let Some(field) = fields.get("condition") {
                let shape = "service_started, service_healthy or service_completed_successfully";
                other.condition = word("condition", field.node, &CONDITIONS, shape)?;
            }
            if let Some(field) = fields.get("required") {
                other.required = flag("required", field.node)?;
            }
            if let Some(field) = fields.get("restart") {
                flag("restart", field.node)?;
            }
        }
        others.push(other);
    }
    Ok(others)
}

//! What the document may say of its instance: what the datasource found, and what the machine knows.

use std::collections::BTreeMap;

use crate::outputs;
use crate::userdata::Facts;

/// The facts under the names that `${instance.…}` has for them.
pub(super) fn of(
    instance_id: &str,
    found: BTreeMap<String, String>,
    default_image: Option<String>,
) -> Facts {
    let mut instance = found;
    instance.insert("id".to_owned(), instance_id.to_owned());
    if let Some(address) = outputs::host::addresses().primary {
        instance.entry("host_ip".to_owned()).or_insert_with(|| address.to_string());
    }
    Facts { instance: Some(instance), default_image }
}

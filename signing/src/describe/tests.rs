//! What components of every kind are described as, and which are refused.

use super::*;
use crate::fixture::{GATEWAY_WIT, TESTDATA, component, sample};
use crate::pack::pack;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sample/schemas.json");

/// Set `UPDATE_GOLDEN=1` to write the file anew, then read the difference.
#[test]
fn schemas_are_those_of_the_golden_file() {
    let packed = pack(&sample(), &[format!("{TESTDATA}/sample").as_str(), GATEWAY_WIT]).unwrap();
    let description = describe(&packed).unwrap();
    let verbs: Map<String, Value> = description
        .verbs
        .into_iter()
        .map(|(name, verb)| {
            let types = serde_json::json!({
                "function": verb.function, "docs": verb.docs, "args": verb.args, "result": verb.result,
            });
            (name, types)
        })
        .collect();
    let real = format!("{:#}\n", Value::Object(verbs));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &real).unwrap();
    }
    assert_eq!(real, std::fs::read_to_string(GOLDEN).unwrap());
    assert_eq!(description.world, "example:sample/plugin@1.2.0");
    let imports = ["viworks:gateway/accounts@1.0.0", "viworks:gateway/log@1.0.0", "viworks:gateway/types@1.0.0"];
    assert_eq!(description.imports, imports);
}

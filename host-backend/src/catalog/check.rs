//! Arguments against a verb's schema, before anything is stored. Makes [`Checked`], the
//! proof that the engine asks for.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use std::sync::Arc;

use super::{Catalog, Verb};

/// More errors than this are not told.
const MAX_ERRORS: usize = 32;
/// Canonical arguments are at most this long, so that an order fits a frame with room.
const MAX_ARGS: usize = 512 * 1024;

/// A verb that exists and arguments that fit it. Made by [`Catalog::check`] alone.
#[derive(Debug, Clone)]
pub struct Checked {
    verb: Arc<Verb>,
    args: String,
}

impl Checked {
    #[must_use]
    pub fn verb(&self) -> &Verb {
        &self.verb
    }

    /// Canonical JSON (RFC 8785).
    #[must_use]
    pub fn args(&self) -> &str {
        &self.args
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("no active plugin has the verb {0:?}")]
    UnknownVerb(String),
    #[error("the arguments do not fit the verb's schema")]
    Arguments(Vec<ArgError>),
}

/// One departure from the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgError {
    /// A JSON Pointer into the arguments.
    pub path: String,
    pub message: String,
}

/// A validator whose patterns can't be made to run long.
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::draft202012::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|e| e.to_string())
}

impl Catalog {
    /// The verb and its arguments, if they fit.
    ///
    /// # Errors
    /// The verb is unknown, or each departure with its path.
    pub fn check(&self, verb: &str, args: &Value) -> Result<Checked, CheckError> {
        let verb = self.verb(verb).ok_or_else(|| CheckError::UnknownVerb(verb.to_owned()))?;
        let errors: Vec<_> = verb.validator.iter_errors(args).take(MAX_ERRORS).flat_map(|e| tell(&e)).collect();
        if !errors.is_empty() {
            return Err(CheckError::Arguments(errors));
        }
        let whole =
            |message: &str| CheckError::Arguments(vec![ArgError { path: String::new(), message: message.into() }]);
        if !args.is_object() {
            return Err(whole("arguments are an object"));
        }
        let args = serde_json_canonicalizer::to_string(args).map_err(|_| whole("a number has no canonical form"))?;
        if args.len() > MAX_ARGS {
            return Err(whole("more than 512 KiB"));
        }
        Ok(Checked { verb, args })
    }
}

/// A missing or surplus property is told at its own path, not at its parent's.
fn tell(error: &ValidationError<'_>) -> Vec<ArgError> {
    let parent = error.instance_path().to_string();
    let at = |name: &str| format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"));
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![ArgError { path: at(property.as_str().unwrap_or_default()), message: "is required".to_owned() }]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .take(MAX_ERRORS)
            .map(|name| ArgError { path: at(name), message: "is not an argument of this verb".to_owned() })
            .collect(),
        // The value itself stays out of the message: it may be a secret.
        _ => vec![ArgError { message: error.masked().to_string(), path: parent }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: &Value, args: &Value) -> Vec<(String, String)> {
        let Ok(validator) = compile(schema) else { panic!("a schema") };
        validator.iter_errors(args).flat_map(|e| tell(&e)).map(|e| (e.path, e.message)).collect()
    }

    #[test]
    fn errors_name_the_path_and_not_the_value() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["name"],
            "properties": { "name": { "type": "string", "pattern": "^[a-z]+$" },
                            "keys": { "type": "array", "items": { "type": "string" } } }
        });
        assert_eq!(errors(&schema, &json!({})), [("/name".into(), "is required".into())]);
        let surplus = errors(&schema, &json!({ "name": "a", "x/y": 1 }));
        assert_eq!(surplus, [("/x~1y".into(), "is not an argument of this verb".into())]);
        let deep = errors(&schema, &json!({ "name": "SECRET", "keys": ["a", 7] }));
        let mut paths: Vec<_> = deep.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/keys/1", "/name"]);
        assert!(deep.iter().all(|(_, message)| !message.contains("SECRET")), "{deep:?}");
    }

    #[test]
    fn patterns_that_need_backtracking_do_not_compile() {
        assert!(compile(&json!({ "pattern": "(a)\\1" })).is_err());
    }
}

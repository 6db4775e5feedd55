//! Which texts of a recording are secret: key material that a capability hands out, hashes
//! that a verb hands in, and whatever a provider conceals. Each is replaced, wherever it
//! appears, by a placeholder that stays the same within the recording.

use serde_json::Value;

use super::tape::Event;

/// Shorter texts are not looked for: they would be found everywhere.
const MIN: usize = 6;

/// More than these are not kept; the recording is then dropped whole.
const MAX: usize = 4_096;

/// Texts to be replaced, the longest first, and what stands for each.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    found: Vec<(String, String)>,
}

/// Where host calls carry secrets: the call, and the field's name in arguments or answer.
const FIELDS: &[(&str, &str)] = &[("accounts.create", "password_hash"), ("vpn.add_peer", "qr_svg")];

/// Fields that hold key material among other text.
const TEXTS: &[(&str, &str)] = &[("vpn.add_peer", "configuration")];

impl Secrets {
    /// Look at a call's arguments and answer.
    pub(super) fn find(&mut self, call: &str, args: &[Value], answer: Option<&Value>) {
        let within = |list: &[(&str, &str)]| list.iter().any(|(name, _)| *name == call);
        if !within(FIELDS) && !within(TEXTS) {
            return;
        }
        for value in args.iter().chain(answer) {
            self.look(call, value);
        }
    }

    fn look(&mut self, call: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let listed = |list: &[(&str, &str)]| list.contains(&(call, field.as_str()));
                    match value {
                        Value::String(text) if listed(FIELDS) => self.add(text),
                        Value::String(text) if listed(TEXTS) => key_material(text).for_each(|key| self.add(key)),
                        other => self.look(call, other),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.look(call, value)),
            _ => {}
        }
    }

    /// Replace this text from now on.
    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() < MIN || self.found.len() >= MAX || self.found.iter().any(|(known, _)| known == secret) {
            return;
        }
        let placeholder = format!("[redacted {}]", self.found.len() + 1);
        let at = self.found.partition_point(|(known, _)| known.len() >= secret.len());
        self.found.insert(at, (secret.to_owned(), placeholder));
    }

    pub(super) fn redact(&self, event: Event) -> Event {
        match event {
            Event::Call { name, args, answer, effects } => Event::Call {
                name,
                args: args.into_iter().map(|arg| self.redact_value(arg)).collect(),
                answer: answer.map(|answer| self.redact_value(answer)),
                effects,
            },
            other => other,
        }
    }

    pub(super) fn redact_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact_text(text)),
            Value::Array(values) => values.into_iter().map(|value| self.redact_value(value)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, self.redact_value(value))).collect(),
            other => other,
        }
    }

    fn redact_text(&self, mut text: String) -> String {
        for (secret, placeholder) in &self.found {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), placeholder);
            }
        }
        text
    }
}

/// The keys in a WireGuard configuration or an OpenVPN profile: values of `…Key = ` that
/// are not public, and what stands between `<key>` and `</key>` or `<tls-crypt>`.
fn key_material(text: &str) -> impl Iterator<Item = &str> {
    let mut block = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        match line {
            "<key>" | "<tls-crypt>" | "<tls-auth>" => block = true,
            "</key>" | "</tls-crypt>" | "</tls-auth>" => block = false,
            _ if block && !line.starts_with("-----") => return Some(line),
            _ => {}
        }
        let (name, value) = line.split_once('=')?;
        matches!(name.trim(), "PrivateKey" | "PresharedKey").then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_and_hashes_are_replaced_wherever_they_are() {
        let mut secrets = Secrets::default();
        let configuration =
            "[Interface]\nPrivateKey = cGVyaGFwc2tleQ==\nAddress = 192.0.2.7/32\n[Peer]\nPublicKey = b3Blbg==\n";
        let answer =
            json!({"Ok": {"peer": {"name": "anna"}, "configuration": configuration, "qr_svg": "<svg>dots</svg>"}});
        secrets.find("vpn.add_peer", &[json!("anna")], Some(&answer));
        secrets.find("accounts.create", &[json!({"name": "anna", "password_hash": "$6$salt$hash"})], None);
        secrets.find("state.set", &[json!("key"), json!("not a secret")], None);

        let shown = secrets.redact_value(json!([answer, "say cGVyaGFwc2tleQ== twice", "$6$salt$hash", "not a secret"]));
        let text = shown.to_string();
        for secret in ["cGVyaGFwc2tleQ==", "<svg>", "$6$salt"] {
            assert!(!text.contains(secret), "{text}");
        }
        for open in ["b3Blbg==", "192.0.2.7/32", "not a secret"] {
            assert!(text.contains(open), "{text}");
        }
        assert!(text.contains("PrivateKey = [redacted 1]"), "{text}");
    }

    #[test]
    fn blocks_of_profiles_are_key_material() {
        let profile = "client\n<ca>\nAAAAAAAA\n</ca>\n<key>\n-----BEGIN PRIVATE KEY-----\nBBBBBBBB\n-----END PRIVATE KEY-----\n</key>\n<tls-crypt>\nCCCCCCCC\n</tls-crypt>\nverb 3\n";
        let found: Vec<&str> = key_material(profile).collect();
        assert_eq!(found, ["BBBBBBBB", "CCCCCCCC"]);
    }
}

//! The sources themselves: a capability changes the host by an effect or not at all. What
//! can write, start a program or talk to an engine is named here with the few files that
//! may do so and why; who may call those files' changes is named too.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};

/// Calls that change files, start programs or reach something that does.
const MUTATING: &[&str] = &[
    "fs::write(",
    "fs::rename(",
    "fs::copy(",
    "fs::hard_link",
    "fs::remove",
    "fs::create_dir",
    "fs::set_permissions",
    "fs::set_len",
    "remove_file(",
    "remove_dir",
    "create_dir",
    "set_permissions",
    "DirBuilder::",
    "OpenOptions::",
    "OFlags::CREATE",
    "OFlags::TRUNC",
    "OFlags::APPEND",
    "File::create",
    "symlink(",
    "symlinkat",
    "hard_link(",
    "linkat(",
    "renameat",
    "mkdirat",
    "mknodat",
    "fchmod",
    "fchown",
    "chmodat",
    "chownat",
    "utimens",
    "setxattr",
    "ftruncate",
    "fallocate",
    "kill_process",
    "mount(",
    "reboot(",
    "sethostname",
    "Command::new",
    "Program::new",
    "UnixStream::connect",
    "TcpStream::connect",
    "UdpSocket",
    "_container(",
    "Connection::open",
    ".execute(",
    "execute_batch",
];

/// Files of `src/` that may make such a call, which, and why it is no change behind a
/// recorder's back.
const ALLOWED: &[(&str, &[&str])] = &[
    // The apply path of accounts: homes by descriptor, tools by argument vector.
    ("capabilities/accounts/dir.rs", &["OFlags::CREATE", "renameat", "mkdirat", "fchmod", "fchown", "linkat("]),
    ("capabilities/accounts/home.rs", &["remove_dir", "fs::remove"]),
    ("capabilities/accounts/tools.rs", &["Program::new"]),
    // Makes its own directory, and sweeps what expired there.
    ("capabilities/accounts/quarantine.rs", &["DirBuilder::", "remove_dir", "fs::remove"]),
    // Makes an empty directory ready to stand for a host; never the real one.
    ("capabilities/accounts/prefix.rs", &["DirBuilder::", "OpenOptions::"]),
    // The apply path of vpn.
    ("capabilities/vpn/files.rs", &["OFlags::CREATE", "renameat", "fchmod", "fchown", "utimens", "linkat("]),
    ("capabilities/vpn/wireguard/mod.rs", &["Program::new", "UnixStream::connect"]),
    ("capabilities/vpn/openvpn/management.rs", &["UnixStream::connect", "TcpStream::connect"]),
    // The apply path of containers.
    ("capabilities/containers/engine.rs", &["_container("]),
    ("capabilities/containers/transport.rs", &["UnixStream::connect"]),
    // The apply path of scripts.
    ("capabilities/scripts.rs", &["Program::new"]),
    // The apply path of state; making its file is the gateway's own business.
    ("capabilities/state/store.rs", &["OpenOptions::", "Connection::open", ".execute(", "execute_batch"]),
    // The broker's socket, and who asks there. What it does to the host, the providers do.
    (
        "broker/activation.rs",
        &["fs::remove", "fs::set_permissions", "remove_file(", "set_permissions", "UnixStream::connect"],
    ),
    ("broker/client.rs", &["UnixStream::connect"]),
    // Reads.
    ("capabilities/secrets/sources.rs", &["OpenOptions::"]),
    ("capabilities/system/services.rs", &["Program::new"]),
];

/// Changes, and the only files that may ask for them: an `apply` path each.
const CALLERS: &[(&str, &[&str])] = &[
    ("effect.apply(", &["effects/recorder.rs", "effects/rollback.rs"]),
    // With this process's own rights: where there is no broker, or by the broker itself.
    (".happen(", &["effects/mod.rs", "broker/handle.rs"]),
    ("broker.apply(", &["effects/mod.rs"]),
    ("host.accounts.apply(", &["effects/mod.rs"]),
    ("host.vpn.apply(", &["effects/mod.rs"]),
    ("host.containers.apply(", &["effects/mod.rs"]),
    ("host.scripts.apply(", &["effects/mod.rs"]),
    ("host.state.apply(", &["effects/mod.rs"]),
    ("apply::apply(", &["capabilities/accounts/mod.rs"]),
    ("tools.add(", &["capabilities/accounts/apply.rs"]),
    ("tools.add_group(", &["capabilities/accounts/apply.rs"]),
    ("tools.delete(", &["capabilities/accounts/apply.rs"]),
    ("tools.set_", &["capabilities/accounts/apply.rs"]),
    ("tools.restore_shadow(", &["capabilities/accounts/apply.rs"]),
    ("home::create(", &["capabilities/accounts/apply.rs"]),
    ("home::write_keys(", &["capabilities/accounts/apply.rs"]),
    ("home::discard(", &[]),
    ("quarantine::put(", &["capabilities/accounts/apply.rs"]),
    ("quarantine::take(", &["capabilities/accounts/apply.rs"]),
    ("quarantine::sweep(", &["capabilities/accounts/mod.rs"]),
    ("accounts.sweep(", &["app.rs", "broker/handle.rs"]),
    (
        "files::replace(",
        &[
            "capabilities/vpn/wireguard/mod.rs",
            "capabilities/vpn/wireguard/removed.rs",
            "capabilities/vpn/openvpn/mod.rs",
            "capabilities/vpn/openvpn/database.rs",
        ],
    ),
    ("wireguard()?.add(", &["capabilities/vpn/mod.rs"]),
    ("wireguard()?.remove(", &["capabilities/vpn/mod.rs"]),
    ("wireguard()?.restore(", &["capabilities/vpn/mod.rs"]),
    ("openvpn()?.add(", &["capabilities/vpn/mod.rs"]),
    ("openvpn()?.remove(", &["capabilities/vpn/mod.rs"]),
    ("openvpn()?.restore(", &["capabilities/vpn/mod.rs"]),
    ("engine.stop(", &["capabilities/containers/mod.rs"]),
    ("engine.start(", &["capabilities/containers/mod.rs"]),
    ("engine.remove(", &["capabilities/containers/mod.rs"]),
    ("store.put(", &["capabilities/state.rs"]),
];

/// A file of `src/` without its comments, texts and tests; and the same without spaces.
struct Source {
    name: String,
    code: String,
    dense: String,
}

impl Source {
    fn new(name: String, code: String) -> Self {
        // The numbers of system calls, which a filter lists, are no calls.
        let (first, words) = code.split_once("SYS_").map_or((code.as_str(), ""), |split| split);
        let rest = words.split("SYS_").map(|w| w.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        let code = first.to_owned() + &rest.collect::<String>();
        let dense = code.split_whitespace().collect();
        Self { name, code, dense }
    }
}

/// Every source that is not for tests alone.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    visit(&root, &mut found);
    let mut tests: Vec<PathBuf> = Vec::new();
    for path in &found {
        let code = code(&std::fs::read_to_string(path).unwrap());
        let lines: Vec<&str> = code.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let Some(name) = pair[1].split("mod ").nth(1).and_then(|m| m.strip_suffix(';')) else { continue };
            let dir = path.parent().unwrap();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let inside = if matches!(stem, "mod" | "lib" | "main") { dir.to_owned() } else { dir.join(stem) };
            tests.push(inside.join(format!("{name}.rs")));
            tests.push(inside.join(name));
        }
    }
    found.retain(|path| !tests.iter().any(|test| path.starts_with(test)));
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    found.iter().map(|path| Source::new(name(path), code(&std::fs::read_to_string(path).unwrap()))).collect()
}

fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file: comments and texts blanked, and its own tests, which stand last,
/// cut off.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = character(rest) {
            length
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    let tests = code.find("#[cfg(test)]\nmod tests {").or_else(|| code.find("#[cfg(test)]\npub(crate) mod tests {"));
    code.truncate(tests.unwrap_or(code.len()));
    code
}

/// How many `#` a raw text has that begins here.
fn raw(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a character in quotes that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('\'')?;
    let length = match after.strip_prefix('\\') {
        Some(escaped) => {
            let first = escaped.chars().next()?.len_utf8();
            1 + first + escaped[first..].find('\'')?
        }
        None => after.chars().next()?.len_utf8(),
    };
    after[length..].starts_with('\'').then_some(length + 2)
}

/// Whether a capability could change the host here without an effect.
fn faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let guarded = ["capabilities", "effects", "executor", "runtime", "broker"];
    for source in sources.iter().filter(|s| guarded.iter().any(|dir| s.name.starts_with(dir))) {
        let allowed = ALLOWED.iter().find(|(name, _)| *name == source.name).map_or(&[][..], |(_, calls)| calls);
        for call in MUTATING.iter().filter(|call| source.code.contains(**call) && !allowed.contains(call)) {
            faults.push(format!("{}: `{call}` outside the providers' apply paths: make it an effect", source.name));
        }
        for call in allowed.iter().filter(|call| !source.code.contains(**call)) {
            faults.push(format!("{}: `{call}` is allowed here and not there any more", source.name));
        }
    }
    for (call, callers) in CALLERS {
        for source in sources.iter().filter(|s| s.dense.contains(call)).filter(|s| !callers.contains(&s.name.as_str()))
        {
            faults.push(format!("{}: `{call}` is for {callers:?} alone", source.name));
        }
    }
    // The second is how one version of the gateway becomes another.
    let starts = ["process.rs", "process/replace.rs"];
    for source in sources.iter().filter(|s| s.code.contains("Command::new") && !starts.contains(&s.name.as_str())) {
        faults.push(format!("{}: programs are started in {starts:?} alone", source.name));
    }
    faults
}

#[test]
fn no_capability_changes_the_host_but_by_an_effect() {
    let sources = sources();
    assert!(sources.len() > 80, "the sources were found");
    let known = |name: &&str| sources.iter().any(|s| s.name == **name);
    let named = ALLOWED.iter().map(|(name, _)| name).chain(CALLERS.iter().flat_map(|(_, names)| *names));
    let gone: Vec<_> = named.filter(|name| !known(name)).collect();
    assert!(gone.is_empty(), "allowed files that are not there: {gone:?}");
    let faults = faults(&sources);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// With a broker configured nothing of the host is touched here: one place decides who
/// applies, and every read that needs root asks the same way first.
#[test]
fn who_has_a_broker_does_nothing_without_it() {
    let sources = sources();
    let dense = |name: &str| sources.iter().find(|s| s.name == name).unwrap().dense.clone();
    let effects = dense("effects/mod.rs");
    for (way, done) in [("foresee(self,", "accounts.foresee("), ("trace(&self,", "accounts.trace(")] {
        let way = &effects[effects.find(&format!("asyncfn{way}")).unwrap()..];
        assert!(way.find("host.broker_of(").unwrap() < way.find(done).unwrap(), "{done} is reached past the broker");
    }
    let reads = [
        ("capabilities/accounts/mod.rs", "asyncfndatabase(", "Database::read("),
        ("capabilities/accounts/mod.rs", "asyncfnsweep(", "quarantine::sweep("),
        ("capabilities/accounts/foresee.rs", "asyncfnkeys_of(", "home::read_keys("),
        ("capabilities/vpn/mod.rs", "asyncfnlist(", "wireguard()?.list("),
        ("capabilities/vpn/mod.rs", "asyncfnfind(", "wireguard()?.list("),
        ("capabilities/containers/mod.rs", "asyncfnversion(", "engine.version("),
        ("capabilities/containers/mod.rs", "asyncfnlisted(", "engine.list("),
        ("capabilities/containers/foresee.rs", "asyncfninspect(", "engine.inspect("),
        ("capabilities/scripts.rs", "asyncfnthere(", "self.pinned("),
        ("capabilities/secrets/mod.rs", "asyncfnthere(", "self.resolve("),
    ];
    for (name, function, read) in reads {
        let code = dense(name);
        let body = &code[code.find(function).unwrap()..];
        assert!(body.find("reach.broker()").unwrap() < body.find(read).unwrap(), "{name}: {read} past the broker");
    }
    // What a guest's functions call of a provider is one of these, or of no rights.
    for guest in ["capabilities/accounts/guest.rs", "capabilities/vpn/host.rs", "capabilities/containers/host.rs"] {
        for direct in ["engine.", "Database::read(", "home::read_keys(", "wireguard()", "openvpn()"] {
            assert!(!dense(guest).contains(direct), "{guest}: {direct} without asking who may");
        }
    }
}

#[test]
fn a_change_behind_the_recorder_is_found_wherever_it_is_added() {
    let sources = sources();
    let with = |name: &str, line: &str| {
        let source = sources.iter().find(|s| s.name == name).unwrap();
        faults(&[Source::new(name.to_owned(), source.code.clone() + &code(line))])
    };
    for call in MUTATING {
        for name in ["capabilities/accounts/guest.rs", "capabilities/system/mod.rs", "runtime/invoke.rs"] {
            assert!(!with(name, &format!("fn f() {{ {call}x) }}\n")).is_empty(), "{call} in {name}");
        }
    }
    for (call, _) in CALLERS {
        assert!(!with("capabilities/vpn/host.rs", &format!("fn f() {{ {call}x) }}\n")).is_empty(), "{call}");
        assert!(!with("plugins/mod.rs", &format!("fn f() {{ {call}\n    x) }}\n")).is_empty(), "{call}");
    }
    assert!(!with("link/mod.rs", "fn f() { std::process::Command::new(x) }").is_empty());
    // An allowed file may do what it is allowed, and no more.
    assert!(!with("capabilities/accounts/tools.rs", "fn f() { std::fs::write(x) }").is_empty());
}

#[test]
fn comments_texts_and_tests_are_no_code() {
    let text = "// fs::write\nfn f<'a>() { g(\"fs::write \\\" fs::write\", '\"', r#\"fs::write\"#, b'\\'') } /* fs::write */\n";
    assert!(!code(text).contains("fs::write"), "{}", code(text));
    assert!(code("let x = '\"'; fs::write(y);").contains("fs::write"));
    assert!(!code("fn f() {}\n#[cfg(test)]\nmod tests {\n fs::write\n}\n").contains("fs::write"));
}

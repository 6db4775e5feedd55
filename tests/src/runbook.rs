//! Runbooks, tried: takes the blocks out of a page of `docs/runbooks/` and runs them, in order,
//! in one shell of a sandbox. The rules are at the top of `docs/runbooks/README.md`. Refuses a
//! page without blocks, one that names no environment, and a block that is never closed.

use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::time::Duration;

use crate::program::workspace;
use crate::sandbox::{self, Given};

/// What a page is tried in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A machine on which nothing of ViWorkS is installed; the packages are in /root/packages.
    Bare,
    /// Backend, gateway `web-01`, release repository, and an operator's shell.
    Site,
    /// As `Site`, with the packages in /root/packages as well.
    Packages,
}

/// A page as it is tried.
#[derive(Debug)]
pub struct Runbook {
    pub name: String,
    pub environment: Environment,
    pub blocks: Vec<Block>,
}

/// One block and the line on which its first command is.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub line: usize,
    pub text: String,
}

impl Runbook {
    /// The page `docs/runbooks/NAME.md`.
    ///
    /// # Errors
    /// When it is not there, or against the rules.
    pub fn read(name: &str) -> Result<Self> {
        let path = workspace().join("docs/runbooks").join(format!("{name}.md"));
        let text = fs::read_to_string(&path).map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
        Self::parse(name, &text)
    }

    /// # Errors
    /// When it is against the rules.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let refused = |why: &str| Error::other(format!("{name}.md: {why}"));
        let named = text.lines().find_map(|line| line.strip_prefix("<!-- runbook: ")?.strip_suffix(" -->"));
        let environment = match named {
            Some("bare") => Environment::Bare,
            Some("site") => Environment::Site,
            Some("packages") => Environment::Packages,
            _ => return Err(refused("no line `<!-- runbook: bare -->`, `site` or `packages`")),
        };
        let mut blocks = Vec::new();
        // What ends the block that is being read.
        let mut open: Option<(&str, Block)> = None;
        for (at, line) in text.lines().enumerate() {
            let ends = open.as_ref().is_some_and(|(end, _)| line == *end);
            match (&mut open, line) {
                (Some(_), _) if ends => blocks.extend(open.take().map(|(_, block)| block)),
                (Some((_, block)), _) => block.text = format!("{}{line}\n", block.text),
                (None, "```sh run") => open = Some(("```", Block { line: at + 2, text: String::new() })),
                (None, "<!-- run") => open = Some(("-->", Block { line: at + 2, text: String::new() })),
                (None, _) => {}
            }
        }
        if let Some((_, block)) = open {
            return Err(refused(&format!("the block at line {} does not end", block.line)));
        }
        if blocks.is_empty() {
            return Err(refused("no block to run"));
        }
        Ok(Self { name: name.to_owned(), environment, blocks })
    }

    /// The page as one script, which says where it failed.
    #[must_use]
    pub fn script(&self) -> String {
        let name = &self.name;
        let mut script = String::from(PROLOGUE);
        script.push_str(match self.environment {
            Environment::Bare => BARE,
            Environment::Site => SITE,
            Environment::Packages => PACKAGES,
        });
        for Block { line, text } in &self.blocks {
            let _ = write!(script, "\n__at='{name}.md:{line}'; echo \"== $__at\"\n{text}");
        }
        script.push_str("\ntrap - EXIT\necho '== done'\n");
        script
    }

    /// Run every block, in order, in a new sandbox; what was printed.
    ///
    /// # Errors
    /// At the first command that fails, with the block's line and all that was printed.
    pub fn try_it(&self, given: &Given, within: Duration) -> Result<String> {
        let said = sandbox::run(&self.script(), given, within)?;
        if said.lines().any(|line| line == "== done") {
            return Ok(said);
        }
        Err(Error::other(format!("{}.md ended before its end:\n{said}", self.name)))
    }
}

const PROLOGUE: &str = r#"set -Eeuo pipefail
__at=before
__failed() {
  code=$?
  trap - EXIT
  echo "== FAILED at $__at with $code: $BASH_COMMAND"
  for log in /run/sandbox-units/*/log; do [ ! -f "$log" ] || { echo "== $log"; tail -n 15 "$log"; }; done
  exit 1
}
trap __failed ERR
trap 'code=$?; echo "== LEFT at $__at with $code"; exit 1' EXIT
. "$VIW_SOURCE/tests/sandbox/site.sh"
"#;

const BARE: &str = "mkdir -p /root/packages\ncp \"$VIW_DEBS\"/*.deb /root/packages/\ncd /root\n";

const SITE: &str = "site >/tmp/site.log 2>&1 || { cat /tmp/site.log; false; }\ncd /root/viworks\n";

const PACKAGES: &str = "mkdir -p /root/packages\ncp \"$VIW_DEBS\"/*.deb /root/packages/\n\
                        site >/tmp/site.log 2>&1 || { cat /tmp/site.log; false; }\ncd /root/viworks\n";

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n<!-- runbook: site -->\n\n```sh run\necho one\n```\n\n```sh\nnot run\n```\n<!-- run\n\
                        echo hidden\n-->\n";

    #[test]
    fn takes_the_marked_blocks_in_order() {
        let book = Runbook::parse("page", PAGE).unwrap();
        assert_eq!(book.environment, Environment::Site);
        let block = |line, text: &str| Block { line, text: text.to_owned() };
        assert_eq!(book.blocks, [block(5, "echo one\n"), block(12, "echo hidden\n")]);
    }

    #[test]
    fn refuses_pages_that_say_too_little() {
        for (page, why) in [
            ("```sh run\ntrue\n```\n", "no line"),
            ("<!-- runbook: moon -->\n```sh run\ntrue\n```\n", "no line"),
            ("<!-- runbook: site -->\n```sh\ntrue\n```\n", "no block"),
            ("<!-- runbook: site -->\n```sh run\ntrue\n", "does not end"),
        ] {
            let error = Runbook::parse("page", page).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

//! Gives back the memory of the program's own code that nobody runs any more. Loading
//! plugins walks through most of the program once (signatures, certificates, schemas,
//! types), and every page of code that was ever run stays counted and mapped. Refuses to
//! touch anything but code as it is in the program's file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// One load follows another when a gateway starts; the last one is waited for.
const QUIET: Duration = Duration::from_secs(2);

/// Give code back whenever `worked` was told and nothing more came for a while.
pub async fn give_back(worked: Arc<Notify>) {
    loop {
        worked.notified().await;
        while timeout(QUIET, worked.notified()).await.is_ok() {}
        match drop_code() {
            Ok(bytes) => tracing::debug!(bytes, "code that was run is no longer mapped"),
            Err(error) => tracing::debug!(%error, "code stays mapped"),
        }
    }
}

/// Unmap the pages of this program's code; what still runs comes back from the page cache,
/// page by page, without the disk. Answers how many bytes of code there are.
///
/// # Errors
/// When the mappings can't be read, or the kernel refuses.
fn drop_code() -> std::io::Result<usize> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut bytes = 0;
    for (start, length) in maps.lines().filter_map(|line| code(line, &program)) {
        #[allow(unsafe_code, reason = "the second audited exception: advice on the program's own code")]
        // SAFETY: the range is one mapping of this program's own file, private, executable
        // and not writable. So its pages are what the file holds (code is loaded without
        // relocations, and a program that runs can't be written to), and a page that is
        // dropped reads the same when it comes back. It stays mapped throughout.
        let done = unsafe { libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
        bytes += length;
    }
    Ok(bytes)
}

/// Start and length of the mapping, if it is code of `program`.
fn code(line: &str, program: &Path) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode) = (fields.next()?, fields.next()?);
    let path = line.find('/').map(|at| Path::new(&line[at..]))?;
    if mode != "r-xp" || path != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of this program's code that are mapped now.
    fn mapped_kib() -> u64 {
        let program = std::fs::read_link("/proc/self/exe").expect("a program");
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("mappings");
        let (mut ours, mut kib) = (false, 0);
        for line in maps.lines() {
            // A mapping's own line begins with its range, a figure's with its name.
            match line.strip_prefix("Rss:") {
                Some(rss) if ours => kib += rss.trim().trim_end_matches(" kB").parse::<u64>().expect("a number"),
                None if line.starts_with(|c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) => {
                    ours = code(line, &program).is_some();
                }
                _ => {}
            }
        }
        kib
    }

    #[test]
    fn only_code_as_the_file_has_it_is_meant() {
        let program = Path::new("/usr/bin/viworks gateway");
        let of = |line: &str| code(line, program);
        assert_eq!(of("1000-3000 r-xp 00001000 fe:00 7 /usr/bin/viworks gateway"), Some((0x1000, 0x2000)));
        for other in [
            "1000-3000 r--p 00001000 fe:00 7 /usr/bin/viworks gateway",
            "1000-3000 rwxp 00001000 fe:00 7 /usr/bin/viworks gateway",
            "1000-3000 r-xs 00001000 fe:00 7 /usr/bin/viworks gateway",
            "1000-3000 r-xp 00001000 fe:00 7 /usr/lib/libc.so.6",
            "1000-3000 r-xp 00000000 00:00 0 ",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
            "3000-1000 r-xp 00001000 fe:00 7 /usr/bin/viworks gateway",
            "1000 r-xp 00001000 fe:00 7 /usr/bin/viworks gateway",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn code_that_was_given_back_still_runs() {
        // A compiler is much code, which nobody needs afterwards.
        let work = || {
            let engine = wasmtime::Engine::default();
            let wasm =
                wat::parse_str("(component (core module (func (result i32) i32.const 7)))").expect("a component");
            let component = wasmtime::component::Component::from_binary(&engine, &wasm).expect("compiled");
            component.serialize().expect("code")
        };
        let (before, mapped) = (work(), mapped_kib());
        assert!(drop_code().expect("dropped") > 0, "the code of this test program was found");
        let left = mapped_kib();
        assert!(left < mapped, "{left} KiB of {mapped} are mapped");
        assert_eq!(work(), before);
    }
}

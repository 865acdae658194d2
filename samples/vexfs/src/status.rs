// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel tells about vexfs, and the two ways to show it.

use std::fs;
use std::io;
use std::path::Path;

/// A loaded module and the filesystems that it holds.
#[derive(Debug, PartialEq)]
pub struct Status {
    pub version: String,
    pub filesystems: Vec<Filesystem>,
}

/// One filesystem; `mount_points` is empty if none of them is visible from here.
#[derive(Debug, PartialEq)]
pub struct Filesystem {
    pub device: String,
    pub mount_points: Vec<String>,
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

/// Read the status below `proc` (normally /proc); None: the module is not loaded.
pub fn read(proc: &Path) -> io::Result<Option<Status>> {
    let text = match fs::read_to_string(proc.join("fs/vexfs/status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mounts = String::from_utf8_lossy(&fs::read(proc.join("self/mountinfo"))?).into_owned();
    match parse(&text, &mounts) {
        Some(status) => Ok(Some(status)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "fs/vexfs/status is not in the format of this vexctl",
        )),
    }
}

/// Join the module's status with the mount points of mountinfo (see proc(5)).
fn parse(text: &str, mountinfo: &str) -> Option<Status> {
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version ")?.to_string();
    let mut filesystems = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["mount", device, "used", used, "limit", limit] = words[..] {
            filesystems.push(Filesystem {
                device: device.to_string(),
                mount_points: mount_points(mountinfo, device),
                used_bytes: used.parse().ok()?,
                limit_bytes: limit.parse().ok()?,
            });
        } else {
            return None;
        }
    }
    Some(Status {
        version,
        filesystems,
    })
}

/// Fields 3 and 5 of a line are the device and the mount point.
fn mount_points(mountinfo: &str, device: &str) -> Vec<String> {
    mountinfo
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 4 && fields[2] == device)
        .map(|fields| unescape(fields[4]))
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The status for people.
pub fn to_text(status: &Option<Status>) -> String {
    let status = match status {
        None => return "vexfs is not loaded.\n".to_string(),
        Some(status) => status,
    };
    let mut text = format!("vexfs {} is loaded, ", status.version);
    match status.filesystems.len() {
        0 => text.push_str("nothing is mounted.\n"),
        1 => text.push_str("1 filesystem is mounted:\n"),
        n => text.push_str(&format!("{n} filesystems are mounted:\n")),
    }
    for one in &status.filesystems {
        let place = if one.mount_points.is_empty() {
            format!("device {}", one.device)
        } else {
            one.mount_points.join(", ")
        };
        let (used, limit) = (human(one.used_bytes), human(one.limit_bytes));
        text.push_str(&format!("  {place}: {used} of {limit} used\n"));
    }
    text
}

/// The status for programs: one line of JSON.
pub fn to_json(status: &Option<Status>) -> String {
    let status = match status {
        None => return "{\"loaded\":false,\"version\":null,\"mounts\":[]}\n".to_string(),
        Some(status) => status,
    };
    let mounts: Vec<String> = status
        .filesystems
        .iter()
        .map(|one| {
            let points: Vec<String> = one.mount_points.iter().map(|p| quote(p)).collect();
            format!(
                "{{\"device\":{},\"mount_points\":[{}],\"used_bytes\":{},\"limit_bytes\":{}}}",
                quote(&one.device),
                points.join(","),
                one.used_bytes,
                one.limit_bytes
            )
        })
        .collect();
    format!(
        "{{\"loaded\":true,\"version\":{},\"mounts\":[{}]}}\n",
        quote(&status.version),
        mounts.join(",")
    )
}

/// A JSON string (RFC 8259, section 7).
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\0'..='\x1f' => quoted.push_str(&format!("\\u{:04x}", char as u32)),
            _ => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes in the largest binary unit that leaves at least 1, with one decimal: `1.5 MiB`.
fn human(bytes: u64) -> String {
    let mut unit = 0;
    while bytes >> (unit * 10) >= 1024 {
        unit += 1;
    }
    let name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][unit];
    let tenths = (u128::from(bytes) * 10) >> (unit * 10);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        decimal => format!("{}.{decimal} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "version 1.2.3\n\
        mount 0:45 used 8192 limit 65536\n\
        mount 0:46 used 1610612736 limit 4294967296\n";
    const MOUNTINFO: &str = "21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n\
        60 21 0:45 / /mnt/two\\040words rw - vexfs vexfs rw,size=64k,mode=755\n\
        61 21 0:45 / /mnt/again rw - vexfs vexfs rw,size=64k,mode=755\n";

    fn sample() -> Option<Status> {
        parse(STATUS, MOUNTINFO)
    }

    #[test]
    fn joins_figures_and_mount_points() {
        let status = sample().unwrap();
        assert_eq!(status.version, "1.2.3");
        assert_eq!(
            status.filesystems[0].mount_points,
            ["/mnt/two words", "/mnt/again"]
        );
        assert_eq!(status.filesystems[0].used_bytes, 8192);
        assert!(status.filesystems[1].mount_points.is_empty());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(parse("", ""), None);
        assert_eq!(parse("release 1\n", ""), None);
        assert_eq!(parse("version 1\nmount 0:45 used x limit 1\n", ""), None);
        assert_eq!(parse("version 1\nmount 0:45 used 1\n", ""), None);
    }

    #[test]
    fn shows_it_to_people() {
        assert_eq!(
            to_text(&sample()),
            "vexfs 1.2.3 is loaded, 2 filesystems are mounted:\n  \
             /mnt/two words, /mnt/again: 8 KiB of 64 KiB used\n  \
             device 0:46: 1.5 GiB of 4 GiB used\n"
        );
        assert_eq!(
            to_text(&parse("version 1.2.3\n", "")),
            "vexfs 1.2.3 is loaded, nothing is mounted.\n"
        );
        assert_eq!(to_text(&None), "vexfs is not loaded.\n");
    }

    #[test]
    fn shows_it_to_programs() {
        let status = parse("version 1.2.3\nmount 0:45 used 1 limit 2\n", MOUNTINFO);
        assert_eq!(
            to_json(&status),
            "{\"loaded\":true,\"version\":\"1.2.3\",\"mounts\":[{\"device\":\"0:45\",\
             \"mount_points\":[\"/mnt/two words\",\"/mnt/again\"],\
             \"used_bytes\":1,\"limit_bytes\":2}]}\n"
        );
        assert_eq!(
            to_json(&None),
            "{\"loaded\":false,\"version\":null,\"mounts\":[]}\n"
        );
    }

    #[test]
    fn quotes_for_json() {
        assert_eq!(quote("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
    }

    #[test]
    fn chooses_units() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1024), "1 KiB");
        assert_eq!(human(1536 * 1024), "1.5 MiB");
        assert_eq!(human(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn reads_a_proc_directory() {
        let proc = std::env::temp_dir().join(format!("vexctl-test-{}", std::process::id()));
        fs::create_dir_all(proc.join("fs/vexfs")).unwrap();
        fs::create_dir_all(proc.join("self")).unwrap();
        assert_eq!(read(&proc).unwrap(), None);

        fs::write(proc.join("self/mountinfo"), MOUNTINFO).unwrap();
        fs::write(proc.join("fs/vexfs/status"), STATUS).unwrap();
        assert_eq!(read(&proc).unwrap(), sample());

        fs::write(proc.join("fs/vexfs/status"), "garbage\n").unwrap();
        assert_eq!(read(&proc).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::remove_dir_all(&proc).unwrap();
    }
}

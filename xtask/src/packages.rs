//! Debian packages: which are missing, and installing them without touching anything else.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::run::{Privilege, ask, run, which};

/// A package, and a file or program that shows that nobody needs to install it.
///
/// Asking for files instead of packages takes what was installed by other means and works on other
/// distributions.
pub(crate) struct Need {
    pub(crate) package: &'static str,
    shown_by: &'static str,
}

impl Need {
    fn is_met(&self) -> bool {
        let path = Path::new(self.shown_by);
        if path.is_absolute() {
            return path.exists();
        }
        // Daemons and network tools stand where a user's PATH may not lead.
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        which(self.shown_by).is_some() || system.iter().any(|bin| bin.join(path).is_file())
    }
}

/// What building, testing and the demonstration use.
pub(crate) const TOOLS: [Need; 16] = [
    Need {
        package: "gcc",
        shown_by: "cc",
    },
    Need {
        package: "libc6-dev",
        shown_by: "/usr/include/stdio.h",
    },
    Need {
        package: "ca-certificates",
        shown_by: "/etc/ssl/certs/ca-certificates.crt",
    },
    Need {
        package: "iproute2",
        shown_by: "ip",
    },
    Need {
        package: "ethtool",
        shown_by: "ethtool",
    },
    Need {
        package: "iputils-ping",
        shown_by: "ping",
    },
    Need {
        package: "tcpdump",
        shown_by: "tcpdump",
    },
    Need {
        package: "tshark",
        shown_by: "tshark",
    },
    Need {
        package: "curl",
        shown_by: "curl",
    },
    Need {
        package: NGINX,
        shown_by: "nginx",
    },
    Need {
        package: "iperf3",
        shown_by: "iperf3",
    },
    Need {
        package: "iputils-tracepath",
        shown_by: "tracepath",
    },
    Need {
        package: "netcat-openbsd",
        shown_by: "nc",
    },
    Need {
        package: PROMETHEUS,
        shown_by: "prometheus",
    },
    Need {
        package: "tmux",
        shown_by: "tmux",
    },
    // The tutorial's web servers.
    Need {
        package: "python3",
        shown_by: "python3",
    },
];

/// What the benchmark compares with; no test uses it.
pub(crate) const RIVALS_OF_BENCH: [Need; 3] = [
    Need {
        package: "nftables",
        shown_by: "nft",
    },
    Need {
        package: HAPROXY,
        shown_by: "haproxy",
    },
    Need {
        package: "libnginx-mod-stream",
        shown_by: "/usr/lib/nginx/modules/ngx_stream_module.so",
    },
];

/// What cargo-deb asks for the libraries that the program needs.
pub(crate) const SHLIBDEPS: Need = Need {
    package: "dpkg-dev",
    shown_by: "dpkg-shlibdeps",
};

/// What the test of the Debian package uses: the package's maker, a maker of clean roots to install it
/// in, and a judge.
pub(crate) const FOR_PACKAGE: [Need; 3] = [
    SHLIBDEPS,
    Need {
        package: "mmdebstrap",
        shown_by: "mmdebstrap",
    },
    Need {
        package: "lintian",
        shown_by: "lintian",
    },
];

/// The compiler of bpf-linker's and libFuzzer's C++.
pub(crate) const CXX: Need = Need {
    package: "g++",
    shown_by: "c++",
};

const NGINX: &str = "nginx-light";
const PROMETHEUS: &str = "prometheus";
const HAPROXY: &str = "haproxy";

/// The compiler for BPF.
pub(crate) const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Packages that [`COMPILER`] says it cannot stand beside.
const RIVALS: [&str; 3] = ["rustc", "rustc-mozilla", "rustup"];

/// The packages of those needs that are not met.
pub(crate) fn missing(needs: &[Need]) -> Vec<String> {
    needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package.into())
        .collect()
}

/// Debian's package manager.
pub(crate) struct Apt {
    privilege: Privilege,
    is_fresh: bool,
}

impl Apt {
    /// Nothing on a system without it.
    pub(crate) fn look(privilege: Privilege) -> Option<Self> {
        which("apt-get").map(|_| Self {
            privilege,
            is_fresh: false,
        })
    }

    /// Reads the package lists anew, once.
    fn refresh(&mut self) -> Result<()> {
        if !self.is_fresh {
            self.is_fresh = true;
            println!("setup: reading Debian's package lists");
            let mut update = self.apt_get()?;
            // Old lists may do: what cannot be installed from them is an error further down.
            if let Err(error) = run(update.args(["-qq", "update"])) {
                println!("setup: {error:#}; going on with the lists that are here");
            }
        }
        Ok(())
    }

    /// Whether Debian has these packages.
    pub(crate) fn offers(&mut self, packages: &[&str]) -> Result<bool> {
        self.refresh()?;
        let policy = ask(Command::new("apt-cache")
            .arg("policy")
            .args(packages)
            .env("LC_ALL", "C"));
        let policy = policy.unwrap_or_default();
        let offered = policy
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .filter(|version| *version != "(none)");
        Ok(offered.count() == packages.len())
    }

    /// Installs packages; refuses to remove or downgrade any other.
    pub(crate) fn install(&mut self, packages: &[String]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        self.refresh()?;
        println!("setup: installing {}", packages.join(" "));
        let quiet = QuietServices::begin(self.privilege, packages)?;
        let mut install = self.apt_get()?;
        // Downgrades need an option of their own, which is not given.
        install.args([
            "-qq",
            "--yes",
            "--no-remove",
            "--no-install-recommends",
            "install",
        ]);
        let installed = run(install.args(packages));
        if let Some(quiet) = quiet {
            quiet.end()?;
        }
        installed
    }

    fn apt_get(&self) -> Result<Command> {
        // By way of env, because sudo drops variables. At run level 1 a System V init starts no
        // server that a package brings; for systemd see `QuietServices`.
        let mut command = self.privilege.command("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]);
        Ok(command)
    }
}

/// Keeps systemd from starting servers that a package brings, now and at boot.
///
/// The tests start nginx themselves, in their own namespaces, and the benchmark HAProxy. Unlike a
/// `policy-rc.d`, which would have to be written and removed again, a mask in /run concerns these
/// services alone and is gone after a reboot even if we are killed in between.
struct QuietServices {
    privilege: Privilege,
    services: Vec<&'static str>,
}

/// Packages that bring a server, and its service.
const SERVICES: [(&str, &str); 3] = [
    (NGINX, "nginx.service"),
    (HAPROXY, "haproxy.service"),
    (PROMETHEUS, "prometheus.service"),
];

impl QuietServices {
    fn begin(privilege: Privilege, packages: &[String]) -> Result<Option<Self>> {
        let services: Vec<&str> = SERVICES
            .into_iter()
            .filter(|(package, _)| packages.iter().any(|other| other == package))
            .map(|(_, service)| service)
            .collect();
        if services.is_empty() || !Path::new("/run/systemd/system").is_dir() {
            return Ok(None);
        }
        println!("setup: {} shall not be started", services.join(" and "));
        let quiet = Self {
            privilege,
            services,
        };
        quiet.systemctl(&["--quiet", "--runtime", "mask"])?;
        Ok(Some(quiet))
    }

    fn end(self) -> Result<()> {
        self.systemctl(&["--quiet", "--runtime", "unmask"])?;
        self.systemctl(&["--quiet", "disable"])
    }

    fn systemctl(&self, words: &[&str]) -> Result<()> {
        let mut command = self.privilege.command("systemctl")?;
        run(command.args(words).args(&self.services))
    }
}

/// Installed packages that Debian's compiler for BPF would drive out.
pub(crate) fn rivals() -> Vec<String> {
    // It fails when it does not know one of the names, and still lists the others.
    let mut query = Command::new("dpkg-query");
    let output = query
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(RIVALS)
        .output();
    output.map_or_else(
        |_| Vec::new(),
        |output| installed(&String::from_utf8_lossy(&output.stdout)),
    )
}

fn installed(listing: &str) -> Vec<String> {
    let name = |line: &str| line.strip_suffix(" installed").map(String::from);
    listing.lines().filter_map(name).collect()
}

/// Where Debian puts an LLVM.
pub(crate) fn llvm_prefix(major: u32) -> PathBuf {
    // The variable of bpf-linker's own build.
    env::var_os("LLVM_PREFIX").map_or_else(
        || PathBuf::from(format!("/usr/lib/llvm-{major}")),
        PathBuf::from,
    )
}

/// What bpf-linker is built from: LLVM's shared library and headers, and C++'s.
///
/// Only what a link against the shared library takes; Polly, zlib and zstd are for a static one.
pub(crate) fn linker_packages(major: u32) -> Vec<String> {
    let mut packages = Vec::new();
    let prefix = llvm_prefix(major);
    if !prefix.join("include/llvm-c").is_dir() || !prefix.join("lib").is_dir() {
        packages.push(format!("llvm-{major}-dev"));
    }
    packages.extend(missing(&[CXX]));
    packages
}

/// Says what a person has to do where there is no apt.
pub(crate) fn by_hand(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    bail!(
        "there is no apt-get here: install what Debian calls {} with this system's package manager",
        packages.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_that_left_its_settings_is_no_rival() {
        let listing = "rustc config-files\nrustup installed\n";
        assert_eq!(installed(listing), ["rustup"]);
    }

    #[test]
    fn a_program_or_a_file_meets_a_need() {
        assert!(
            Need {
                package: "dash",
                shown_by: "sh"
            }
            .is_met()
        );
        assert!(
            Need {
                package: "base-files",
                shown_by: "/etc"
            }
            .is_met()
        );
        assert!(
            !Need {
                package: "none",
                shown_by: "no-such-program"
            }
            .is_met()
        );
    }
}

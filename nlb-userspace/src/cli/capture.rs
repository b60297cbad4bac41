//! `nlb capture`: has the kernel copy packets, tells what became of each, and writes them to a file or a pipe.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::Args;
use nlb_common::{
    capture::{Missed, Wish},
    next_hop::NextHopSlot,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until, timeout_at},
};

use super::{Failure, Pins, count, endpoint::Reach};
use crate::{
    capture::{
        Action, Packet,
        exits::Exits,
        file::{File, Told},
        told,
        whose::{Places, Records},
        wish::Filter,
    },
    clock,
    dataplane::{
        capture::{Capture as Program, Request},
        running::{FlowMaps, Running},
        shared::Shared,
    },
    interfaces::Interfaces,
    names::Names,
};

/// Which packets, how many, and where to.
#[derive(Debug, Args)]
pub struct Capture {
    /// Which packets
    #[command(flatten)]
    filter: Filter,
    /// Where to: a file that is made or emptied, or `-` for a pipe, such as one to `wireshark -k -i -`
    #[arg(long, short, value_name = "FILE")]
    write: PathBuf,
    /// End after so many packets
    #[arg(long, short, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How many bytes are kept of each frame
    #[arg(long, short, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=4096))]
    snaplen: u32,
    /// How many packets are copied in a second, for each processor; the others are counted
    #[arg(long, value_name = "PACKETS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate_limit: u32,
    /// Memory for packets that have not been written yet, in MiB: a power of two
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = buffer)]
    buffer: u32,
    /// Packets that come in through this interface
    #[arg(long, short, value_name = "NAME")]
    interface: Option<String>,
    /// The pins of the running program
    #[command(flatten)]
    pins: Pins,
    /// The daemon, asked for names; addresses are shown without one
    #[command(flatten)]
    reach: Reach,
}

fn buffer(text: &str) -> Result<u32, String> {
    let mebibytes: u32 = text
        .parse()
        .map_err(|_| format!("`{text}` is not a number"))?;
    if mebibytes.is_power_of_two() && mebibytes <= 1024 {
        Ok(mebibytes)
    } else {
        Err("a power of two is needed, 1024 at most".to_owned())
    }
}

/// How often it is looked whether the packet program is still the same, and where listeners and targets are.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Capture {
    /// Does it.
    pub async fn run(self) -> Result<String, Failure> {
        let mut session = Session::of(&self).await?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let end = self
            .seconds
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let over = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = session.go_on() => result,
            () = over => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        session.end(result)
    }

    /// Opens what is written to. Only its owner may read a new file: packets have secrets in them.
    fn open(&self) -> io::Result<Box<dyn Write>> {
        if self.write == Path::new("-") {
            return Ok(Box::new(io::BufWriter::new(io::stdout())));
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(io::BufWriter::new(options.open(&self.write)?)))
    }
}

/// A capture that goes on.
struct Session<'c> {
    options: &'c Capture,
    file: File<Box<dyn Write>>,
    interfaces: Interfaces,
    names: Names,
    wish: Wish,
    interface: Option<u32>,
    kernel: Kernel,
    /// Packets that earlier programs did not show.
    missed_before: Missed,
    exits: Exits,
}

/// What is in the kernel: replaced as a whole when the packet program is.
struct Kernel {
    running: Running,
    maps: FlowMaps,
    places: Places,
    next_hops: Shared<NextHopSlot>,
    program: Program,
}

impl Kernel {
    fn of(running: Running, maps: FlowMaps, request: &Request<'_>) -> Result<Self, Failure> {
        Ok(Self {
            places: Places::of(&maps.table(clock::now())),
            next_hops: running.next_hops()?,
            program: Program::begin(&running, request)?,
            maps,
            running,
        })
    }
}

impl<'c> Session<'c> {
    async fn of(options: &'c Capture) -> Result<Self, Failure> {
        let running = options.running()?;
        Running::generation(&options.pins.directory())?;
        let maps = running.flows()?;
        let names = Names::ask(&options.reach.endpoint()?).await;
        let interfaces = Interfaces::open()?;
        let filter = &options.filter;
        let wish = filter.resolve(&maps.table(clock::now()), &names, clock::of_this_kernel())?;
        let interface = options.interface.as_deref();
        let interface = interface.map(|name| interfaces.wanted(name)).transpose()?;
        let wish = Wish {
            frame_bytes: options.snaplen,
            packets_per_second: options.rate_limit,
            ..wish
        };
        let pins = options.pins.directory();
        let kernel = Kernel::of(running, maps, &options.request(&pins, &wish, interface))?;
        // Last: nothing is emptied for a capture that cannot begin.
        let out = options.open();
        let out =
            out.map_err(|error| format!("cannot write `{}`: {error}", options.write.display()))?;
        let mut file = File::begin(out, options.snaplen, &asked())?;
        file.flush()?;
        eprintln!("nlb: capturing; Ctrl-C ends it");
        Ok(Self {
            options,
            file,
            interfaces,
            names,
            wish,
            interface,
            kernel,
            missed_before: Missed::default(),
            exits: Exits::default(),
        })
    }

    /// Until there are as many packets as were asked for, or nobody reads them.
    async fn go_on(&mut self) -> Result<(), Failure> {
        loop {
            let next_look = Instant::now() + LOOK_EVERY;
            while Instant::now() < next_look {
                if self.is_complete() || !self.write_some(next_look).await? {
                    return Ok(());
                }
            }
            self.look()?;
        }
    }

    fn is_complete(&self) -> bool {
        self.options
            .count
            .is_some_and(|count| self.file.packets() >= count)
    }

    /// Writes what there is, or comes within that time; `false` if nobody reads any more.
    async fn write_some(&mut self, until: Instant) -> Result<bool, Failure> {
        let Self {
            options,
            file,
            interfaces,
            names,
            kernel,
            exits,
            ..
        } = self;
        let boot = since_1970_at_boot();
        let most = options.count.unwrap_or(u64::MAX);
        let records = Records {
            table: kernel.maps.table(clock::now()),
            places: &kernel.places,
            settings: &kernel.running.settings,
            names,
        };
        let mut written = Ok(());
        let show = |record: &[u8]| {
            let Some(packet) = Packet::read(record) else {
                return true;
            };
            let whose = records.whose(&packet);
            let entrance = interfaces.name(packet.interface);
            let exit = packet
                .left
                .map_or_else(String::new, |left| match packet.action {
                    Action::Transmit => entrance.clone(),
                    _ => (exits.of(left.bytes, &kernel.next_hops))
                        .map_or_else(|| "unknown".to_owned(), |index| interfaces.name(index)),
                });
            let told = Told {
                since_1970: boot + Duration::from_nanos(packet.at_ns),
                entrance: &entrance,
                came: &told::came(&packet, &whose, &exit),
                exit: &exit,
                left: &told::left(&packet, &whose),
            };
            written = file.write(&packet, &told);
            written.is_ok() && file.packets() < most
        };
        match timeout_at(until, kernel.program.packets(show)).await {
            Ok(waited) => waited?,
            Err(_elapsed) => return Ok(true),
        }
        match written.and_then(|()| file.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Finds out what has changed: where listeners and targets are, or the whole packet program.
    fn look(&mut self) -> Result<(), Failure> {
        let running = self.options.running()?;
        if running.program == self.kernel.running.program {
            self.kernel.places = Places::of(&self.kernel.maps.table(clock::now()));
            let _links = self.kernel.program.renew()?;
            return Ok(());
        }
        self.missed_before = self.missed()?;
        let maps = running.flows()?;
        let pins = self.options.pins.directory();
        let request = self.options.request(&pins, &self.wish, self.interface);
        self.kernel = Kernel::of(running, maps, &request)?;
        eprintln!(
            "nlb: the daemon has replaced the packet program; capturing goes on with the new one"
        );
        Ok(())
    }

    fn missed(&self) -> Result<Missed, Failure> {
        let now = self.kernel.program.missed()?;
        Ok(Missed {
            lost: self.missed_before.lost + now.lost,
            limited: self.missed_before.limited + now.limited,
        })
    }

    fn end(self, result: Result<(), Failure>) -> Result<String, Failure> {
        let missed = self.missed()?;
        let packets = count(usize::try_from(self.file.packets())?, "packet");
        let now = since_1970_at_boot() + clock::since_boot();
        match self.file.end(now, missed.lost) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        eprintln!(
            "nlb: {packets} captured; {} more were lost for want of room (--buffer), and {} were \
             more than --rate-limit",
            missed.lost, missed.limited
        );
        result.map(|()| String::new())
    }
}

impl Capture {
    fn running(&self) -> Result<Running, Failure> {
        Ok(Running::attached(
            &self.pins.bpffs,
            &self.pins.directory(),
            None,
        )?)
    }

    fn request<'r>(&self, pins: &'r Path, wish: &'r Wish, interface: Option<u32>) -> Request<'r> {
        Request {
            pins,
            wish,
            interface,
            ring_bytes: self.buffer << 20,
        }
    }
}

/// The command, for the head of the file.
fn asked() -> String {
    let words: Vec<String> = std::env::args().collect();
    words.join(" ")
}

/// When the clock that counts from boot was at zero, in time since 1970.
#[expect(clippy::disallowed_methods, reason = "packets carry the time of day")]
fn since_1970_at_boot() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(clock::since_boot())
}

//! The replica against the tries that were not taken: bans of single IPv4 addresses and of IPv6 /64s, beside 10,000
//! networks (fewer where there are fewer bans); what a ban takes in memory, and how long it takes to load many.
//!
//! `cargo bench --bench replica`; with `REPLICA_10M=1` also for ten million bans, which takes 2 GB and some minutes.
//! Elements are lookups of random addresses, and bans loaded. Quote ratios between rows of one run.

use allocation_counter::measure;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ip_network_table_deps_treebitmap::IpLookupTable;
use mailfail2ban::engine::address::{Address, Network};
use mailfail2ban::engine::ban::{Act, Ban, Decision, Origin, PatternId, Severity};
use mailfail2ban::engine::replica::Replica;
use mailfail2ban::engine::table::hash_key;
use mailfail2ban::engine::time::Time;
use prefix_trie::PrefixMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Random numbers, the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A host below 128.0.0.0.
    fn host(&mut self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.next() as u32 >> 1)
    }

    fn host_v6(&mut self) -> Ipv6Addr {
        Ipv6Addr::from_bits(0x2001 << 112 | u128::from(self.next()) << 48 | u128::from(self.next() as u32))
    }
}

fn decision(client: Network) -> Decision {
    let (Some(pattern), Some(severity)) = (PatternId::new(1), Severity::new(3)) else { unreachable!() };
    let until = Time::from_millis(u64::MAX);
    let ban = Ban { until, offences: 1, failures: 5, pattern, severity };
    Decision { serial: 0, at: Time::default(), client, act: Act::Ban(ban), origin: Origin::Decided }
}

fn network(address: impl Into<Address>, len: u8) -> Network {
    Network::new(address.into(), len).expect("a valid length")
}

fn ten_million() -> Option<usize> {
    std::env::var_os("REPLICA_10M").map(|_| 10_000_000)
}

/// What `work` leaves allocated, in bytes.
fn bytes_of<T>(work: impl FnOnce() -> T) -> u64 {
    let mut made = None;
    let counted = measure(|| made = Some(work()));
    drop(made);
    counted.bytes_current.unsigned_abs()
}

/// Bytes a ban, in tables that grew with them: a table of a shard has room for a million from the start, which it does not
/// touch before it needs it.
fn memory() {
    println!("{:>12} {:>12} {:>12} {:>12} {:>12}", "bytes a ban", "replica", "of a /64", "treebitmap", "prefix-trie");
    for count in [1_000, 10_000, 100_000, 1_000_000].into_iter().chain(ten_million()) {
        let mut random = Random(1);
        let hosts: Vec<Ipv4Addr> = (0..count).map(|_| random.host()).collect();
        let hosts_v6: Vec<Ipv6Addr> = (0..count).map(|_| random.host_v6()).collect();
        let replica_of = |decisions: &mut dyn Iterator<Item = Decision>| {
            let mut replica = Replica::new(hash_key(1));
            decisions.for_each(|decision| replica.apply(&decision));
            replica
        };
        let taken = [
            bytes_of(|| replica_of(&mut hosts.iter().map(|host| decision(network(*host, 32))))),
            bytes_of(|| replica_of(&mut hosts_v6.iter().map(|host| decision(network(*host, 64))))),
            bytes_of(|| {
                let mut trie: IpLookupTable<Ipv4Addr, u64> = IpLookupTable::new();
                for host in &hosts {
                    trie.insert(*host, 32, 1);
                }
                trie
            }),
            bytes_of(|| {
                let mut trie: PrefixMap<(u32, u8), u64> = PrefixMap::new();
                for host in &hosts {
                    trie.insert((host.to_bits(), 32), 1);
                }
                trie
            }),
        ];
        let [replica, of_64, treebitmap, prefix_trie] = taken.map(|bytes| bytes as f64 / count as f64);
        println!("{count:>12} {replica:>12.1} {of_64:>12.1} {treebitmap:>12.1} {prefix_trie:>12.1}");
    }
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(100));
    for count in std::iter::once(1_000_000).chain(ten_million()) {
        let mut random = Random(1);
        let decisions: Vec<Decision> = (0..count).map(|_| decision(network(random.host(), 32))).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("replica", count), |b| {
            b.iter_with_large_drop(|| {
                let mut replica = Replica::new(hash_key(1));
                replica.prepare_lengths(32, 64);
                decisions.iter().for_each(|decision| replica.apply(decision));
                replica
            });
        });
    }
    group.finish();
}

fn bench(criterion: &mut Criterion) {
    memory();
    load(criterion);
    let now = Time::from_millis(1);
    let mut group = criterion.benchmark_group("lookup");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    group.throughput(Throughput::Elements(100_000));
    for count in [1_000, 10_000, 100_000, 1_000_000].into_iter().chain(ten_million()) {
        let mut random = Random(1);
        let mut replica = Replica::new(hash_key(1));
        replica.prepare_lengths(32, 64);
        let mut treebitmap: IpLookupTable<Ipv4Addr, u64> = IpLookupTable::new();
        let mut prefix_trie: PrefixMap<(u32, u8), u64> = PrefixMap::new();
        let hosts: Vec<Ipv4Addr> = (0..count).map(|_| random.host()).collect();
        let hosts_v6: Vec<Ipv6Addr> = (0..count).map(|_| random.host_v6()).collect();
        for host in &hosts {
            replica.apply(&decision(network(*host, 32)));
            treebitmap.insert(*host, 32, 1);
            prefix_trie.insert((host.to_bits(), 32), 1);
        }
        for host in &hosts_v6 {
            replica.apply(&decision(network(*host, 64)));
        }
        for _ in 0..count.min(100_000) / 10 {
            let (host, len) = (random.host(), 16 + (random.next() % 12) as u8);
            let base = Ipv4Addr::from_bits(host.to_bits() & u32::MAX << (32 - len));
            replica.apply(&decision(network(host, len)));
            treebitmap.insert(base, u32::from(len), 1);
            prefix_trie.insert((base.to_bits(), len), 1);
        }
        // From the same ranges as the bans: with 31 bits, one in 2,000 is banned all the same.
        let misses: Vec<Ipv4Addr> = (0..count).map(|_| random.host()).collect();
        let misses_v6: Vec<Ipv6Addr> = (0..count).map(|_| random.host_v6()).collect();
        // 100,000 questions in another order than the bans came.
        let mut order = Random(2);
        let mut some =
            |from: usize| -> Vec<usize> { (0..100_000).map(|_| (order.next() % from as u64) as usize).collect() };
        let picks = some(hosts.len());
        let pick = |from: &[Ipv4Addr]| -> Vec<Address> { picks.iter().map(|at| Address::from(from[*at])).collect() };
        let pick_v6 = |from: &[Ipv6Addr]| -> Vec<Address> { picks.iter().map(|at| Address::from(from[*at])).collect() };
        let v4 = |address: &Address| match address.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => unreachable!("only asked for IPv4"),
        };
        for (what, questions) in [("hit", pick(&hosts)), ("miss", pick(&misses))] {
            let mut row = |name: &str, found: &dyn Fn(&Address) -> bool| {
                group.bench_function(BenchmarkId::new(format!("{name} IPv4 {what}"), count), |b| {
                    b.iter(|| questions.iter().filter(|address| found(address)).count());
                });
            };
            row("replica", &|address| replica.lookup(*address, now).is_some());
            row("treebitmap", &|address| treebitmap.longest_match(v4(address)).is_some());
            row("prefix-trie", &|address| prefix_trie.get_lpm(&(v4(address).to_bits(), 32)).is_some());
        }
        for (what, questions) in [("hit", pick_v6(&hosts_v6)), ("miss", pick_v6(&misses_v6))] {
            group.bench_function(BenchmarkId::new(format!("replica IPv6 {what}"), count), |b| {
                b.iter(|| questions.iter().filter(|address| replica.lookup(**address, now).is_some()).count());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

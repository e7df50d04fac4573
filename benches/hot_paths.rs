//! Times the pure hot paths: `cargo bench --bench hot_paths`.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use criterion::{Criterion, criterion_group, criterion_main};

mod workloads;

fn hot_paths(criterion: &mut Criterion) {
    for workload in workloads::ALL {
        let mut run = (workload.prepare)();
        criterion.bench_function(workload.name, |bencher| bencher.iter(&mut run));
    }
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);

//! The erasure code: bytes of an object a second, beside ISA-L's and beside copying as much.
//!
//! Profiles are r of n, sizes are those of the whole object, so a fragment is an r-th of it. *encode* makes all n − r parity
//! fragments; *decode* makes as many lost data fragments as parity can stand for, with the plan at hand or made each time
//! (`planned`). *copy* reads and writes as many bytes in all, half of them each: faster than that is not to be had from memory.
//!
//! ISA-L is a library in C and assembly, loaded by name where it is installed (Debian: `libisal2`); where it is not, its rows
//! are missing and a line says so. Before anything is measured, its fragments and ours are compared. It plans as its examples do:
//! rows of what is left, inverted by elimination.
//!
//! *glacier* is what a node does with it: aggregates split into fragments with their hashes and paths, all of these verified,
//! and the aggregate joined from the last r, which codes and hashes once more.
#![allow(missing_docs, reason = "criterion's macros make a public function without documentation")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use erasure::glacier::fragment::verify;
use erasure::glacier::{Coder, Profile};
use erasure::{Code, Encoder, Kernel, Plan};
use std::hint::black_box;
use std::time::Duration;

/// (r, n): Glacier's own, a customary one for storage, and two that show how cost grows with r.
const PROFILES: [(usize, usize); 4] = [(5, 56), (10, 14), (16, 32), (32, 64)];
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 4 << 20];

/// The functions of ISA-L that make fragments, and nothing else of it.
mod isa_l {
    use std::ffi::{CStr, c_int, c_void};

    type GenerateMatrix = unsafe extern "C" fn(*mut u8, c_int, c_int);
    type InvertMatrix = unsafe extern "C" fn(*mut u8, *mut u8, c_int) -> c_int;
    type InitTables = unsafe extern "C" fn(c_int, c_int, *mut u8, *mut u8);
    type EncodeData = unsafe extern "C" fn(c_int, c_int, c_int, *mut u8, *mut *mut u8, *mut *mut u8);

    /// The library, loaded for the rest of the process.
    pub(crate) struct IsaL {
        generate_matrix: GenerateMatrix,
        invert_matrix: InvertMatrix,
        init_tables: InitTables,
        encode_data: EncodeData,
    }

    fn number(count: usize) -> c_int {
        c_int::try_from(count).expect("far below the bound")
    }

    impl IsaL {
        /// The library, if it is installed.
        pub(crate) fn load() -> Option<IsaL> {
            // SAFETY: the name is a C string. Loading runs the library's initialisers, as linking to it would.
            let library = unsafe { libc::dlopen(c"libisal.so.2".as_ptr(), libc::RTLD_NOW) };
            if library.is_null() {
                return None;
            }
            let symbol = |name: &CStr| -> Option<*mut c_void> {
                // SAFETY: the handle is that of a library that is never closed; the name is a C string.
                let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
                (!symbol.is_null()).then_some(symbol)
            };
            // SAFETY: these are functions, and the types are their declarations in erasure_code.h of version 2 of the
            // library, which its name promises.
            unsafe {
                Some(IsaL {
                    generate_matrix: std::mem::transmute::<*mut c_void, GenerateMatrix>(symbol(
                        c"gf_gen_cauchy1_matrix",
                    )?),
                    invert_matrix: std::mem::transmute::<*mut c_void, InvertMatrix>(symbol(c"gf_invert_matrix")?),
                    init_tables: std::mem::transmute::<*mut c_void, InitTables>(symbol(c"ec_init_tables")?),
                    encode_data: std::mem::transmute::<*mut c_void, EncodeData>(symbol(c"ec_encode_data")?),
                })
            }
        }

        /// The whole matrix of the code, n rows of r.
        pub(crate) fn matrix(&self, needed: usize, total: usize) -> Vec<u8> {
            let mut matrix = vec![0; needed * total];
            // SAFETY: the function writes n rows of r bytes, which is the vector's length.
            unsafe { (self.generate_matrix)(matrix.as_mut_ptr(), number(total), number(needed)) };
            matrix
        }

        /// The tables for these rows of r coefficients.
        pub(crate) fn tables(&self, needed: usize, mut rows: Vec<u8>) -> Vec<u8> {
            let mut tables = vec![0; 32 * rows.len()];
            let count = rows.len() / needed;
            // SAFETY: the function reads `count` rows of r bytes and writes 32 bytes for each.
            unsafe {
                (self.init_tables)(number(needed), number(count), rows.as_mut_ptr(), tables.as_mut_ptr());
            }
            tables
        }

        /// The rows that make the fragments `lost` of the fragments `present`.
        pub(crate) fn recovery(&self, matrix: &[u8], needed: usize, present: &[u8], lost: &[u8]) -> Vec<u8> {
            let mut left: Vec<u8> =
                present.iter().flat_map(|index| &matrix[usize::from(*index) * needed..][..needed]).copied().collect();
            assert_eq!(left.len(), needed * needed);
            let mut inverse = vec![0; needed * needed];
            // SAFETY: both matrices are r rows of r bytes.
            let failed = unsafe { (self.invert_matrix)(left.as_mut_ptr(), inverse.as_mut_ptr(), number(needed)) };
            assert_eq!(failed, 0, "every r rows of the matrix are independent");
            let rows =
                lost.iter().flat_map(|index| &inverse[usize::from(*index) * needed..][..needed]).copied().collect();
            self.tables(needed, rows)
        }

        /// Writes one output for each row of the tables.
        pub(crate) fn encode(&self, tables: &mut [u8], sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
            let length = sources[0].len();
            assert!(sources.iter().all(|source| source.len() == length));
            assert!(outputs.iter().all(|output| output.len() == length));
            assert_eq!(tables.len(), 32 * sources.len() * outputs.len());
            let (mut from, mut to) = ([std::ptr::null_mut(); 256], [std::ptr::null_mut(); 256]);
            from.iter_mut().zip(sources).for_each(|(pointer, source)| *pointer = source.as_ptr().cast_mut());
            to.iter_mut().zip(&mut *outputs).for_each(|(pointer, output)| *pointer = output.as_mut_ptr());
            // SAFETY: there are as many pointers, each to `length` bytes, and as many tables as the counts say (asserted
            // above); the function only reads the sources.
            unsafe {
                (self.encode_data)(
                    number(length),
                    number(sources.len()),
                    number(outputs.len()),
                    tables.as_mut_ptr(),
                    from.as_mut_ptr(),
                    to.as_mut_ptr(),
                );
            }
        }
    }
}

fn read(buffers: &[Vec<u8>]) -> Vec<&[u8]> {
    buffers.iter().map(|buffer| &buffer[..]).collect()
}

fn write(buffers: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    buffers.iter_mut().map(|buffer| &mut buffer[..]).collect()
}

/// Copies half of the fragments onto the other half.
fn copy(fragments: &mut [Vec<u8>]) {
    let (sources, outputs) = fragments.split_at_mut(fragments.len() / 2);
    for (source, output) in sources.iter().zip(outputs) {
        output.copy_from_slice(black_box(source));
    }
}

fn encode(criterion: &mut Criterion) {
    let isa_l = isa_l::IsaL::load();
    if isa_l.is_none() {
        println!("libisal.so.2 is not installed here: measured without ISA-L beside it");
    }
    println!("kernel: {}", Kernel::fastest().name());
    for (needed, total) in PROFILES {
        let mut group = criterion.benchmark_group(format!("erasure encode {needed} of {total}"));
        let encoder = Encoder::new(&Code::new(needed, total).expect("a code"));
        for size in SIZES {
            let length = size.div_ceil(needed);
            let mut fragments: Vec<Vec<u8>> =
                (0..total).map(|index| (0..length).map(|at| (at % 251 + index) as u8).collect()).collect();
            group.throughput(Throughput::Bytes(size as u64));
            {
                let (data, parity) = fragments.split_at_mut(needed);
                let (data, mut parity) = (read(data), write(parity));
                encoder.encode(&data, &mut parity).expect("sound");
                group.bench_function(BenchmarkId::new("ours", size), |bencher| {
                    bencher.iter(|| encoder.encode(black_box(&data), &mut parity).expect("sound"));
                });
                if let Some(isa_l) = &isa_l {
                    let mut tables = isa_l.tables(needed, isa_l.matrix(needed, total)[needed * needed..].to_vec());
                    let mut theirs = vec![vec![0; length]; total - needed];
                    let mut theirs = write(&mut theirs);
                    isa_l.encode(&mut tables, &data, &mut theirs);
                    assert!(theirs == parity, "ISA-L makes other parity for {needed} of {total}");
                    group.bench_function(BenchmarkId::new("isa-l", size), |bencher| {
                        bencher.iter(|| isa_l.encode(&mut tables, black_box(&data), &mut theirs));
                    });
                }
            }
            group.bench_function(BenchmarkId::new("copy", size), |bencher| bencher.iter(|| copy(&mut fragments)));
        }
        group.finish();
    }
}

fn decode(criterion: &mut Criterion) {
    let isa_l = isa_l::IsaL::load();
    for (needed, total) in PROFILES {
        let mut group = criterion.benchmark_group(format!("erasure decode {needed} of {total}"));
        let code = Code::new(needed, total).expect("a code");
        let encoder = Encoder::new(&code);
        let lost_count = needed.min(total - needed);
        let lost: Vec<u8> = (0..lost_count).map(|index| index as u8).collect();
        let present: Vec<u8> = (lost_count..lost_count + needed).map(|index| index as u8).collect();
        for size in SIZES {
            let length = size.div_ceil(needed);
            let data: Vec<Vec<u8>> =
                (0..needed).map(|index| (0..length).map(|at| (at % 251 + index) as u8).collect()).collect();
            let mut parity = vec![vec![0; length]; total - needed];
            encoder.encode(&read(&data), &mut write(&mut parity)).expect("sound");
            let fragments: Vec<&[u8]> =
                read(&data[lost_count..]).into_iter().chain(read(&parity[..lost_count])).collect();
            let mut outputs = vec![vec![0; length]; lost_count];
            let mut outputs = write(&mut outputs);
            group.throughput(Throughput::Bytes(size as u64));

            let plan = Plan::new(&code, &present, &lost).expect("sound");
            plan.apply(&fragments, &mut outputs).expect("sound");
            assert!(outputs == data[..lost_count], "not what was lost");
            group.bench_function(BenchmarkId::new("ours", size), |bencher| {
                bencher.iter(|| plan.apply(black_box(&fragments), &mut outputs).expect("sound"));
            });
            group.bench_function(BenchmarkId::new("ours planned", size), |bencher| {
                bencher.iter(|| {
                    let plan = Plan::new(&code, black_box(&present), &lost).expect("sound");
                    plan.apply(black_box(&fragments), &mut outputs).expect("sound");
                });
            });
            if let Some(isa_l) = &isa_l {
                let matrix = isa_l.matrix(needed, total);
                let mut tables = isa_l.recovery(&matrix, needed, &present, &lost);
                outputs.iter_mut().for_each(|output| output.fill(0));
                isa_l.encode(&mut tables, &fragments, &mut outputs);
                assert!(outputs == data[..lost_count], "not what was lost, by ISA-L");
                group.bench_function(BenchmarkId::new("isa-l", size), |bencher| {
                    bencher.iter(|| isa_l.encode(&mut tables, black_box(&fragments), &mut outputs));
                });
                group.bench_function(BenchmarkId::new("isa-l planned", size), |bencher| {
                    bencher.iter(|| {
                        let mut tables = isa_l.recovery(&matrix, needed, black_box(&present), &lost);
                        isa_l.encode(&mut tables, black_box(&fragments), &mut outputs);
                    });
                });
            }
            let mut touched = vec![vec![1; length]; needed + lost_count];
            group.bench_function(BenchmarkId::new("copy", size), |bencher| bencher.iter(|| copy(&mut touched)));
        }
        group.finish();
    }
}

fn glacier(criterion: &mut Criterion) {
    for profile in [Profile::DEFAULT, Profile::WIDE] {
        let mut group = criterion.benchmark_group(format!("glacier {} of {}", profile.needed, profile.total));
        for size in SIZES {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut coder = Coder::new();
            let (name, values) = coder.split(&payload, profile).expect("within bounds");
            let last = &values[values.len() - usize::from(profile.needed)..];
            assert!(coder.join(name, last).expect("sound") == payload, "not what was split");
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("split", size), |bencher| {
                bencher.iter(|| coder.split(black_box(&payload), profile).expect("within bounds"));
            });
            group.bench_function(BenchmarkId::new("verify all", size), |bencher| {
                bencher.iter(|| {
                    for (index, value) in (0..profile.total).zip(black_box(&values)) {
                        black_box(verify(&name.fragment_key(index), value).expect("sound"));
                    }
                });
            });
            group.bench_function(BenchmarkId::new("join", size), |bencher| {
                bencher.iter(|| coder.join(name, black_box(last)).expect("sound"));
            });
        }
        group.finish();
    }
}

/// Few and short samples: what is compared is compared within one run, and there are many cells.
fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
}

criterion_group! { name = benches; config = config(); targets = encode, decode, glacier }
criterion_main!(benches);

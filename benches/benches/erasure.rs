//! The erasure code: bytes of an object a second, by turns with ISA-L and with copying as much.
//!
//! Profiles are r of n, sizes are those of the whole object, so a fragment is an r-th of it. *encode* makes all n − r parity
//! fragments; *decode* makes as many lost data fragments as parity can stand for, with the plan at hand or made each time
//! (*planned decode*). *copy* reads and writes as many bytes in all, half of them each: faster than that is not to be had
//! from memory.
//!
//! All contenders work on the same buffers, one after the other in short turns, and each round begins with another of them: what the
//! machine does meanwhile meets all alike, and a ratio is that of one round. Given are medians over the rounds and the middle
//! half of them. Buffers begin with a cache line, which is best for all, at various places of their pages: whose streams meet in
//! one set of a cache is luck, and each arrangement in memory has another.
//!
//! ISA-L is a library in C and assembly, loaded where it is installed as `libisal.so.2` (Debian: `libisal2`); `ISA_L` names
//! others to be measured beside each other, by their paths, with colons between. Before anything is measured, its fragments and
//! ours are compared. It plans as its examples do: rows of what is left, inverted by elimination.
//!
//! ```text
//! ISA_L=/opt/isa-l/lib/libisal.so.2:/usr/lib/x86_64-linux-gnu/libisal.so.2 cargo bench --bench erasure -- [cell] [--json file]
//! ```

use erasure::{Code, Encoder, Kernel, Plan};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// (r, n): Glacier's own, a customary one for storage, and two that show how cost grows with r.
const PROFILES: [(usize, usize); 4] = [(5, 56), (10, 14), (16, 32), (32, 64)];
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 1 << 20, 4 << 20];
/// Arrangements of the buffers in memory, and rounds with each.
const ARRANGEMENTS: usize = 7;
const ROUNDS: usize = 7;
/// How long a turn is, about.
const TURN: Duration = Duration::from_millis(2);
/// Bytes of a cache line, and of a page.
const LINE: usize = 64;
const PAGE: usize = 4_096;

/// The functions of ISA-L that make fragments, and nothing else of it.
mod isa_l {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};

    type GenerateMatrix = unsafe extern "C" fn(*mut u8, c_int, c_int);
    type InvertMatrix = unsafe extern "C" fn(*mut u8, *mut u8, c_int) -> c_int;
    type InitTables = unsafe extern "C" fn(c_int, c_int, *mut u8, *mut u8);
    type EncodeData = unsafe extern "C" fn(c_int, c_int, c_int, *mut u8, *mut *mut u8, *mut *mut u8);

    /// The library, loaded for the rest of the process.
    pub(crate) struct IsaL {
        name: String,
        generate_matrix: GenerateMatrix,
        invert_matrix: InvertMatrix,
        init_tables: InitTables,
        encode_data: EncodeData,
    }

    type Version = unsafe extern "C" fn() -> *const c_char;

    /// What the file is called from which this function was loaded.
    fn file_name(function: *mut c_void) -> Option<String> {
        // SAFETY: all fields of the structure may be zero.
        let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: the function compares the address with those of what is loaded, and writes the structure.
        if unsafe { libc::dladdr(function, &raw mut found) } == 0 || found.dli_fname.is_null() {
            return None;
        }
        // SAFETY: the library is never closed, and its path is a C string.
        let path = unsafe { CStr::from_ptr(found.dli_fname) }.to_str().ok()?;
        Some(std::fs::canonicalize(path).ok()?.file_name()?.to_string_lossy().into_owned())
    }

    fn number(count: usize) -> c_int {
        c_int::try_from(count).expect("far below the bound")
    }

    impl IsaL {
        /// The library of this file or name, if it is there. Several versions do not meet: each sees its own functions.
        pub(crate) fn load(file: &str) -> Option<IsaL> {
            let file = CString::new(file).ok()?;
            // SAFETY: the name is a C string. Loading runs the library's initialisers, as linking to it would.
            let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            if library.is_null() {
                return None;
            }
            let symbol = |name: &CStr| -> Option<*mut c_void> {
                // SAFETY: the handle is that of a library that is never closed; the name is a C string.
                let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
                (!symbol.is_null()).then_some(symbol)
            };
            let encode_data = symbol(c"ec_encode_data")?;
            let name = match symbol(c"isal_get_version_str") {
                // SAFETY: this is a function, and the type is its declaration in isal_api.h; its answer is a C string that
                // is never freed.
                Some(version) => unsafe {
                    CStr::from_ptr(std::mem::transmute::<*mut c_void, Version>(version)())
                        .to_string_lossy()
                        .into_owned()
                },
                None => file_name(encode_data).unwrap_or_else(|| "unknown".to_owned()),
            };
            // SAFETY: these are functions, and the types are their declarations in erasure_code.h of version 2 of the
            // library, which its name promises.
            unsafe {
                Some(IsaL {
                    name,
                    generate_matrix: std::mem::transmute::<*mut c_void, GenerateMatrix>(symbol(
                        c"gf_gen_cauchy1_matrix",
                    )?),
                    invert_matrix: std::mem::transmute::<*mut c_void, InvertMatrix>(symbol(c"gf_invert_matrix")?),
                    init_tables: std::mem::transmute::<*mut c_void, InitTables>(symbol(c"ec_init_tables")?),
                    encode_data: std::mem::transmute::<*mut c_void, EncodeData>(encode_data),
                })
            }
        }

        /// Its version; that of a library which cannot tell is what its file is called (…so.2.0.30 is 2.30).
        pub(crate) fn name(&self) -> &str {
            &self.name
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

/// Who does the work of a cell, and how.
struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut() + 'a>,
}

fn contender<'a>(name: impl Into<String>, run: impl FnMut() + 'a) -> Contender<'a> {
    Contender { name: name.into(), run: Box::new(run) }
}

/// The median, and where the middle half begins and ends.
struct Spread([f64; 3]);

impl Spread {
    fn of(mut samples: Vec<f64>) -> Spread {
        samples.sort_by(f64::total_cmp);
        Spread([1, 0, 2].map(|quarter| samples[(samples.len() - 1) * (quarter + 1) / 4]))
    }

    fn shown(&self, digits: usize) -> String {
        let Spread([median, low, high]) = self;
        format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
    }

    fn json(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Seconds that something took, of each contender in each round, in the order of the contenders.
#[derive(Default)]
struct Samples {
    names: Vec<String>,
    seconds: Vec<Vec<f64>>,
}

impl Samples {
    /// Lets the contenders work by turns.
    fn take_turns(&mut self, mut contenders: Vec<Contender<'_>>) {
        self.names = contenders.iter().map(|contender| contender.name.clone()).collect();
        self.seconds.resize(contenders.len(), Vec::new());
        let times: Vec<usize> = contenders.iter_mut().map(|contender| times_in_a_turn(&mut contender.run)).collect();
        for round in 0..ROUNDS {
            for turn in 0..contenders.len() {
                let who = (round + turn) % contenders.len();
                let run = &mut contenders[who].run;
                // Once for the caches, which are full of what the one before has used.
                run();
                let begun = Instant::now();
                (0..times[who]).for_each(|_| run());
                self.seconds[who].push(begun.elapsed().as_secs_f64() / times[who] as f64);
            }
        }
    }
}

/// Measures what its filter lets through, and tells of it.
struct Bench {
    filter: String,
    libraries: Vec<isa_l::IsaL>,
    cells: Vec<String>,
}

impl Bench {
    fn wants(&self, cell: &str) -> bool {
        cell.contains(&self.filter)
    }

    /// Tells how fast each was with an object of this size, and how much faster the first was than each.
    fn tell(&mut self, cell: &str, size: usize, samples: &Samples) {
        let mut line = format!("{cell:<30}");
        let mut json = format!("{{\"cell\":{cell:?}");
        for (name, seconds) in samples.names.iter().zip(&samples.seconds) {
            let speed = Spread::of(seconds.iter().map(|seconds| size as f64 / seconds / (1 << 20) as f64).collect());
            let ratio = Spread::of(samples.seconds[0].iter().zip(seconds).map(|(ours, its)| its / ours).collect());
            let ratio_shown = if *name == samples.names[0] { String::new() } else { ratio.shown(2) };
            let _ = write!(line, " {:>21} {ratio_shown:<16}", speed.shown(0));
            let _ = write!(json, ",{name:?}:{{\"mib_per_s\":{},\"ours_to_it\":{}}}", speed.json(), ratio.json());
        }
        println!("{}", line.trim_end());
        self.cells.push(json + "}");
    }
}

/// How often something can be done within a turn, at least once.
fn times_in_a_turn(run: &mut dyn FnMut()) -> usize {
    let mut times = 1;
    loop {
        let begun = Instant::now();
        (0..times).for_each(|_| run());
        let took = begun.elapsed();
        if took * 2 > TURN {
            return (times as f64 * TURN.as_secs_f64() / took.as_secs_f64()).ceil() as usize;
        }
        times *= 2;
    }
}

/// Buffers of one length, each beginning with a cache line, and at other places of their pages in each arrangement.
struct Buffers {
    length: usize,
    all: Vec<(usize, Vec<u8>)>,
}

impl Buffers {
    /// Buffers with other bytes in each.
    fn new(count: usize, length: usize, arrangement: usize) -> Buffers {
        let buffer = |index: usize| {
            let mut bytes = vec![0; length + PAGE + LINE];
            let at = bytes.as_ptr().align_offset(LINE) + (index * 37 + arrangement * 13) * LINE % PAGE;
            (0..length).for_each(|byte| bytes[at + byte] = (byte % 251 + index) as u8);
            (at, bytes)
        };
        Buffers { length, all: (0..count).map(buffer).collect() }
    }

    fn write(&mut self) -> Vec<&mut [u8]> {
        self.all.iter_mut().map(|(at, bytes)| &mut bytes[*at..*at + self.length]).collect()
    }
}

/// Copies the first half of the buffers onto the other.
fn copy(buffers: &mut [&mut [u8]]) {
    let (sources, outputs) = buffers.split_at_mut(buffers.len() / 2);
    for (source, output) in sources.iter().zip(outputs) {
        output.copy_from_slice(black_box(source));
    }
}

fn label(size: usize) -> String {
    if size < 1 << 20 { format!("{} KiB", size >> 10) } else { format!("{} MiB", size >> 20) }
}

fn encode(bench: &mut Bench, needed: usize, total: usize, size: usize) {
    let cell = format!("encode {needed} of {total}, {}", label(size));
    if !bench.wants(&cell) {
        return;
    }
    let length = size.div_ceil(needed);
    let encoder = Encoder::new(&Code::new(needed, total).expect("a code"));
    let mut samples = Samples::default();
    for arrangement in 0..ARRANGEMENTS {
        let mut fragments = Buffers::new(total, length, arrangement);
        let mut fragments = fragments.write();
        let (data, parity) = fragments.split_at_mut(needed);
        let data: Vec<&[u8]> = data.iter().map(|data| &**data).collect();
        encoder.encode(&data, parity).expect("sound");
        let expected: Vec<Vec<u8>> = parity.iter().map(|parity| parity.to_vec()).collect();
        let (data, parity) = (&data, &RefCell::new(parity));
        let encoder = &encoder;
        let mut touched = Buffers::new(total, length, arrangement);
        let mut touched = touched.write();
        let mut contenders = vec![contender("ours", move || {
            encoder.encode(black_box(data), &mut parity.borrow_mut()).expect("sound");
        })];
        for library in &bench.libraries {
            let mut tables = library.tables(needed, library.matrix(needed, total)[needed * needed..].to_vec());
            parity.borrow_mut().iter_mut().for_each(|parity| parity.fill(0));
            library.encode(&mut tables, data, &mut parity.borrow_mut());
            assert!(**parity.borrow() == expected, "{} makes other parity for {needed} of {total}", library.name());
            contenders.push(contender(library.name(), move || {
                library.encode(&mut tables, black_box(data), &mut parity.borrow_mut());
            }));
        }
        contenders.push(contender("copy", move || copy(&mut touched)));
        samples.take_turns(contenders);
    }
    bench.tell(&cell, size, &samples);
}

fn decode(bench: &mut Bench, needed: usize, total: usize, size: usize, is_planned: bool) {
    let cell = format!("{}decode {needed} of {total}, {}", if is_planned { "planned " } else { "" }, label(size));
    if !bench.wants(&cell) {
        return;
    }
    let length = size.div_ceil(needed);
    let code = &Code::new(needed, total).expect("a code");
    let lost_count = needed.min(total - needed);
    let lost: Vec<u8> = (0..lost_count).map(|index| index as u8).collect();
    let present: Vec<u8> = (lost_count..lost_count + needed).map(|index| index as u8).collect();
    let (lost, present) = (&lost, &present);
    let plan = &Plan::new(code, present, lost).expect("sound");
    let mut samples = Samples::default();
    for arrangement in 0..ARRANGEMENTS {
        let mut all = Buffers::new(total, length, arrangement);
        let mut all = all.write();
        let (data, parity) = all.split_at_mut(needed);
        let data: Vec<&[u8]> = data.iter().map(|data| &**data).collect();
        Encoder::new(code).encode(&data, parity).expect("sound");
        let left: Vec<&[u8]> =
            data[lost_count..].iter().copied().chain(parity[..lost_count].iter().map(|parity| &**parity)).collect();
        let left = &left;
        let mut outputs = Buffers::new(lost_count, length, arrangement + total);
        let outputs = &RefCell::new(outputs.write());
        outputs.borrow_mut().iter_mut().for_each(|output| output.fill(0));
        plan.apply(left, &mut outputs.borrow_mut()).expect("sound");
        assert!(**outputs.borrow() == data[..lost_count], "not what was lost");
        let mut touched = Buffers::new(needed + lost_count, length, arrangement);
        let mut touched = touched.write();
        let mut contenders = vec![contender("ours", move || {
            if is_planned {
                let plan = Plan::new(code, black_box(present), lost).expect("sound");
                plan.apply(black_box(left), &mut outputs.borrow_mut()).expect("sound");
            } else {
                plan.apply(black_box(left), &mut outputs.borrow_mut()).expect("sound");
            }
        })];
        for library in &bench.libraries {
            let matrix = library.matrix(needed, total);
            let mut tables = library.recovery(&matrix, needed, present, lost);
            outputs.borrow_mut().iter_mut().for_each(|output| output.fill(0));
            library.encode(&mut tables, left, &mut outputs.borrow_mut());
            assert!(**outputs.borrow() == data[..lost_count], "not what was lost, by {}", library.name());
            contenders.push(contender(library.name(), move || {
                if is_planned {
                    let mut tables = library.recovery(&matrix, needed, black_box(present), lost);
                    library.encode(&mut tables, black_box(left), &mut outputs.borrow_mut());
                } else {
                    library.encode(&mut tables, black_box(left), &mut outputs.borrow_mut());
                }
            }));
        }
        contenders.push(contender("copy", move || copy(&mut touched)));
        samples.take_turns(contenders);
    }
    bench.tell(&cell, size, &samples);
}

fn main() {
    let mut filter = String::new();
    let mut json = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--json" => json = arguments.next(),
            // Cargo says that this is a bench.
            "--bench" => {}
            _ => filter = argument,
        }
    }
    let files = std::env::var("ISA_L").unwrap_or_else(|_| "libisal.so.2".to_owned());
    let libraries: Vec<isa_l::IsaL> = files.split(':').filter_map(isa_l::IsaL::load).collect();
    if libraries.is_empty() {
        println!("{files} is not installed here: measured without ISA-L beside it");
    }
    println!("kernel: {}; {} rounds", Kernel::fastest().name(), ARRANGEMENTS * ROUNDS);
    println!("MiB/s, median (middle half); and how many times as fast as that contender ours is");
    let columns: String =
        libraries.iter().map(|library| format!(" {:>38}", format!("ISA-L {}", library.name()))).collect();
    println!("{:<30} {:>38}{columns} {:>38}", "", "ours", "copy");
    let mut bench = Bench { filter, libraries, cells: Vec::new() };
    for (needed, total) in PROFILES {
        SIZES.iter().for_each(|size| encode(&mut bench, needed, total, *size));
    }
    for is_planned in [false, true] {
        for (needed, total) in PROFILES {
            SIZES.iter().for_each(|size| decode(&mut bench, needed, total, *size, is_planned));
        }
    }
    if let Some(file) = json {
        let text = format!("[\n{}\n]\n", bench.cells.join(",\n"));
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

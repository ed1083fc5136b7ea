//! What the kernels of this directory are given, and what they answer when nothing is wrong with them.

use komt_softgpu::memory::Memory;

/// A launch, its data in place.
pub struct Job {
    pub kernel: &'static str,
    pub grid: u32,
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: Vec<u8>,
    /// Where the result lies, and what it is, as 32-bit words.
    pub out: u64,
    pub want: Vec<u32>,
}

impl Job {
    fn new(kernel: &'static str, grid: u32, threads: u32) -> Self {
        let block = [threads, 1, 1];
        Self { kernel, grid, block, shared_bytes: 0, params: Vec::new(), out: 0, want: Vec::new() }
    }

    fn pointer(mut self, addr: u64) -> Self {
        assert!(self.params.len().is_multiple_of(8));
        self.params.extend(addr.to_le_bytes());
        self
    }

    fn word(mut self, word: u32) -> Self {
        self.params.extend(word.to_le_bytes());
        self
    }

    /// The result as the next parameter: memory for exactly these words.
    fn result(mut self, memory: &Memory, want: Vec<u32>) -> Self {
        self.out = memory.alloc(want.len() as u64 * 4).unwrap();
        self.want = want;
        let out = self.out;
        self.pointer(out)
    }
}

/// Memory that holds exactly these words.
fn upload(memory: &Memory, words: &[u32]) -> u64 {
    let addr = memory.alloc(words.len() as u64 * 4).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(addr, &bytes).unwrap();
    addr
}

fn words(n: u32, f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..n).map(f).collect()
}

fn floats(n: u32, f: impl Fn(u32) -> f32) -> Vec<u32> {
    (0..n).map(|i| f(i).to_bits()).collect()
}

pub fn reduce(memory: &Memory) -> Job {
    let x = |i: u32| (i * 7 % 31) as f32;
    let want = floats(3, |block| (0..256).map(|i| x(block * 256 + i)).sum());
    Job::new("reduce", 3, 256).pointer(upload(memory, &floats(768, x))).result(memory, want)
}

fn first_40(memory: &Memory, kernel: &'static str, want: Vec<u32>) -> Job {
    map(memory, kernel, 64, &words(40, |i| i + 3), want).word(40)
}

pub fn turn(memory: &Memory) -> Job {
    first_40(
        memory,
        "turn",
        words(64, |t| {
            if t < 39 {
                41 - t
            } else if t == 63 {
                42
            } else {
                0
            }
        }),
    )
}

pub fn turn_only(memory: &Memory) -> Job {
    first_40(memory, "turn_only", words(40, |t| 42 - t))
}

pub fn scale(memory: &Memory) -> Job {
    let job = Job::new("scale", 4, 256).pointer(upload(memory, &floats(1000, |i| i as f32)));
    job.result(memory, floats(1000, |i| i as f32 * 2.0)).word(2f32.to_bits()).word(1000)
}

pub fn scale_freed_input(memory: &Memory) -> Job {
    let job = scale(memory);
    memory.free(address(&job, 0)).unwrap();
    job
}

pub fn scale_freed_output(memory: &Memory) -> Job {
    let job = scale(memory);
    memory.free(job.out).unwrap();
    job
}

/// The last quarter of the input is left as it is.
pub fn scale_unwritten_input(memory: &Memory) -> Job {
    let input = memory.alloc(4000).unwrap();
    memory.write(input, &[0; 3000]).unwrap();
    let job = Job::new("scale", 4, 256).pointer(input).result(memory, vec![0; 1000]);
    job.word(2f32.to_bits()).word(1000)
}

/// Parameter `index`, a pointer.
fn address(job: &Job, index: usize) -> u64 {
    u64::from_le_bytes(job.params[index * 8..index * 8 + 8].try_into().unwrap())
}

fn scale4_from(memory: &Memory, bytes: u64) -> Job {
    let input = upload(memory, &floats(1004, |i| i as f32)) + bytes;
    let want = floats(1000, |i| (i + bytes as u32 / 4) as f32 * 2.0);
    Job::new("scale4", 1, 256).pointer(input).result(memory, want).word(2f32.to_bits()).word(1000)
}

pub fn scale4(memory: &Memory) -> Job {
    scale4_from(memory, 0)
}

pub fn scale4_misaligned(memory: &Memory) -> Job {
    scale4_from(memory, 4)
}

fn copy_through(memory: &Memory, kernel: &'static str, other: u32) -> Job {
    // 100 chunks of 4 words for 128 threads: the rest is zero.
    let x = |i: u32| if i < 400 { i + 1 } else { 0 };
    let want = words(512, |i| x(((i / 4) ^ other) * 4 + i % 4));
    Job::new(kernel, 2, 64).pointer(upload(memory, &words(400, x))).result(memory, want).word(100)
}

pub fn copy(memory: &Memory) -> Job {
    copy_through(memory, "copy", 32)
}

pub fn copy_own(memory: &Memory) -> Job {
    copy_through(memory, "copy_own", 0)
}

pub fn pipeline(memory: &Memory) -> Job {
    let x = |i: u32| i * i;
    let column = |t: u32| (0..32).map(|i| x((i / 4 * 64 + t) * 4 + i % 4)).sum();
    let job = Job::new("pipeline", 1, 64).pointer(upload(memory, &words(2048, x)));
    job.result(memory, words(64, |t| column(t ^ 32)))
}

pub fn transpose(memory: &Memory) -> Job {
    let job = Job::new("transpose", 1, 1).pointer(upload(memory, &words(1024, |i| i)));
    Job { block: [32, 8, 1], ..job.result(memory, words(1024, |i| i % 32 * 32 + i / 32)) }
}

fn product_of(memory: &Memory, rows: u32) -> Job {
    // Small whole numbers: exact in bf16, their sums in f32.
    let a = |row: u32, k: u32| (row * 3 + k * 5) as f32 % 7.0 - 3.0;
    let b = |col: u32, k: u32| (col * 2 + k) as f32 % 5.0 - 2.0;
    let pairs = |f: &dyn Fn(u32, u32) -> f32| {
        words(512, |i| {
            let (row, k) = (i / 32, i % 32 * 2);
            f(row, k).to_bits() >> 16 | f(row, k + 1).to_bits() & 0xffff_0000
        })
    };
    let want = floats(rows * 16, |i| (0..64).map(|k| a(i / 16, k) * b(i % 16, k)).sum());
    let job =
        Job::new("product", 1, 64).pointer(upload(memory, &pairs(&a))).pointer(upload(memory, &pairs(&b)));
    job.result(memory, want).word(rows)
}

pub fn product(memory: &Memory) -> Job {
    product_of(memory, 16)
}

pub fn product_of_5_rows(memory: &Memory) -> Job {
    product_of(memory, 5)
}

fn row(memory: &Memory, kernel: &'static str, want: Vec<u32>) -> Job {
    let job = Job::new(kernel, 1, 64).pointer(upload(memory, &words(40, |i| i * i + i / 20)));
    job.result(memory, want).word(20)
}

pub fn row_sums(memory: &Memory) -> Job {
    row(memory, "row_sums", words(2, |row| (row * 20..row * 20 + 20).map(|i| i * i + i / 20).sum()))
}

pub fn odd(memory: &Memory) -> Job {
    row(memory, "odd", vec![10, 10])
}

/// A kernel of `threads` threads with parameters in and out.
fn map(memory: &Memory, kernel: &'static str, threads: u32, input: &[u32], want: Vec<u32>) -> Job {
    Job::new(kernel, 1, threads).pointer(upload(memory, input)).result(memory, want)
}

pub fn pass_down(memory: &Memory) -> Job {
    map(memory, "pass_down", 32, &words(32, |i| i + 5), words(16, |i| (i + 1).min(15) + 5))
}

pub fn exchange(memory: &Memory) -> Job {
    map(memory, "exchange", 64, &words(64, |i| i + 5), words(64, |i| (i ^ 1) + 5))
}

pub fn histogram(memory: &Memory) -> Job {
    map(memory, "histogram", 256, &words(256, |i| i * 5 % 32), vec![8; 32])
}

pub fn total(memory: &Memory) -> Job {
    let job = map(memory, "total", 32, &words(40, |i| i), vec![780]);
    memory.set(job.out, 0, 4).unwrap();
    Job { grid: 40, ..job }
}

pub fn parts(memory: &Memory) -> Job {
    Job { grid: 4, ..map(memory, "parts", 64, &words(256, |i| i * 3), words(256, |i| i * 3 + i / 64)) }
}

fn neighbours_of(memory: &Memory, n: u32) -> Job {
    let want = words(n, |i| if i + 1 < n { 2 * i + 1 } else { i });
    Job { grid: n / 64, ..map(memory, "neighbours", 64, &words(n, |i| i), want).word(n) }
}

pub fn neighbours(memory: &Memory) -> Job {
    neighbours_of(memory, 256)
}

fn in_place(memory: &Memory, n: u32) -> Job {
    let mut job = neighbours_of(memory, n);
    job.out = address(&job, 0);
    job.params.copy_within(0..8, 8);
    job
}

pub fn neighbours_in_place(memory: &Memory) -> Job {
    in_place(memory, 256)
}

pub fn neighbours_in_place_in_one_block(memory: &Memory) -> Job {
    in_place(memory, 64)
}

pub fn reverse(memory: &Memory) -> Job {
    let job = Job::new("reverse", 1, 64).pointer(upload(memory, &words(64, |i| i)));
    job.pointer(memory.alloc(256).unwrap()).result(memory, words(64, |i| 63 - i))
}

pub fn gather(memory: &Memory) -> Job {
    let job = Job::new("gather", 1, 64).pointer(upload(memory, &words(64, |i| i * 7)));
    let table = upload(memory, &words(64, |i| 1000 + i));
    job.pointer(table).result(memory, words(64, |t| 1000 + ((63 - t) * 21 + 1) % 64))
}

pub fn count_large(memory: &Memory) -> Job {
    let job = map(memory, "count_large", 64, &words(64, |i| i), vec![32]);
    memory.set(job.out, 0, 4).unwrap();
    job
}

pub fn reversed(memory: &Memory) -> Job {
    map(memory, "reversed", 64, &words(64, |i| i), words(64, |t| (64 - t) * 2))
}

/// Of the last pair, only the first number is there.
pub fn firsts(memory: &Memory) -> Job {
    let input = memory.alloc(512).unwrap();
    let pairs = words(127, |i| if i % 2 == 0 { i / 2 } else { 63 - i / 2 });
    let bytes: Vec<u8> = pairs.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write(input, &bytes).unwrap();
    Job::new("firsts", 1, 64).pointer(input).result(memory, words(64, |i| i))
}

pub fn hand_over(memory: &Memory) -> Job {
    map(memory, "hand_over", 64, &words(32, |i| i * 9), words(32, |i| i * 9))
}

pub fn signal(memory: &Memory) -> Job {
    map(memory, "signal", 64, &[77], vec![77])
}

pub fn count_down(memory: &Memory) -> Job {
    Job::new("count_down", 1, 1).result(memory, vec![1]).word(7)
}

pub fn shared_sums(memory: &Memory) -> Job {
    let x = |i: u32| if i < 64 { i * i } else { 0 };
    map(memory, "shared_sums", 64, &words(64, x), words(64, |i| x(i) + x(i + 1)))
}

pub fn rotate(memory: &Memory) -> Job {
    let job = map(memory, "rotate", 128, &words(128, |i| i), words(128, |i| (i + 1) % 128));
    Job { shared_bytes: 512, ..job }
}

pub fn rotate_too_little_shared(memory: &Memory) -> Job {
    Job { shared_bytes: 256, ..rotate(memory) }
}

/// No device has more than 227 KiB for a block.
pub fn rotate_too_much_shared(memory: &Memory) -> Job {
    Job { shared_bytes: (227 << 10) + 4, ..rotate(memory) }
}

/// The kernel is compiled for 128.
pub fn rotate_too_many_threads(memory: &Memory) -> Job {
    Job { block: [129, 1, 1], ..rotate(memory) }
}

pub fn scale_too_many_threads(memory: &Memory) -> Job {
    Job { block: [1024, 2, 1], ..scale(memory) }
}

pub fn scale_no_blocks(memory: &Memory) -> Job {
    Job { grid: 0, ..scale(memory) }
}

pub fn scale_lacks_a_parameter(memory: &Memory) -> Job {
    let mut job = scale(memory);
    job.params.truncate(job.params.len() - 4);
    job
}

pub fn sort_of(memory: &Memory) -> Job {
    let x = |i: u32| i * 5 % 17;
    let result = |t: u32| {
        let mut own = [0u32; 8];
        for i in 0..16 {
            own[x((t + i) % 16) as usize % 8] += i;
        }
        own.iter().fold(0u32, |sum, n| sum.wrapping_mul(3).wrapping_add(*n))
    };
    map(memory, "sort_of", 16, &words(16, x), words(16, result))
}

const PRIMES: [u32; 8] = [2, 3, 5, 7, 11, 13, 17, 19];

pub fn prime(memory: &Memory) -> Job {
    map(memory, "prime", 32, &words(32, |i| i), words(32, |i| PRIMES[i as usize % 8]))
}

pub fn store_prime(memory: &Memory) -> Job {
    map(memory, "store_prime", 8, &words(8, |i| i), words(8, |i| i))
}

pub fn look_up(memory: &Memory) -> Job {
    let job = map(memory, "look_up", 32, &words(32, |i| i), words(32, |i| 100 + i % 8)).word(8);
    (0..8).fold(job, |job, i| job.word(100 + i))
}

pub fn checked(memory: &Memory) -> Job {
    map(memory, "checked", 64, &words(64, |i| i), words(64, |i| i))
}

pub fn coalesced(memory: &Memory) -> Job {
    let job = map(memory, "coalesced", 256, &words(2048, |i| i), vec![2047 * 1024]);
    memory.set(job.out, 0, 4).unwrap();
    job
}

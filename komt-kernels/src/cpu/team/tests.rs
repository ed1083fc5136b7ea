use super::*;
use std::sync::atomic::AtomicU8;
use std::time::{Duration, Instant};

/// Runs a job that counts how often each number came, and says so.
fn count(team: &Team, n: usize, grain: usize) {
    let counts: Vec<AtomicU8> = (0..n).map(|_| AtomicU8::new(0)).collect();
    team.run(n, grain, &|range: Range<usize>| {
        assert!(!range.is_empty() && range.end <= n);
        assert!(range.len() >= grain || range.end == n, "{range:?} of {n}, grain {grain}");
        counts[range].iter().for_each(|count| _ = count.fetch_add(1, Relaxed));
    });
    assert!(counts.iter().all(|count| count.load(Relaxed) == 1), "{n} numbers, grain {grain}");
}

#[test]
fn every_number_comes_once() {
    for threads in [1, 2, 3, 7] {
        let team = Team::new(threads).unwrap();
        assert_eq!(team.threads(), threads);
        for n in [0, 1, 2, 3, 15, 16, 17, 100, 1000] {
            for grain in [0, 1, 3, 16, 2000] {
                count(&team, n, grain);
            }
        }
    }
}

/// Jobs of a few numbers, one after the other: workers come late, to the end of a job or to the next one. What a job did must be
/// seen by the one after it, whoever did it.
#[test]
fn short_jobs_follow_each_other() {
    for threads in [2, 3, 8, 33] {
        let team = Team::new(threads).unwrap();
        let mut values = vec![0u32; 64];
        let n_jobs = if threads > 8 { 2_000 } else { 20_000 };
        for job in 0..n_jobs {
            // Half of them in steps: workers that turn, and workers that sleep.
            let _awake = (job / 100 % 2 == 0).then(|| team.stay_awake());
            let n = 2 + job % 63;
            let shared = crate::cpu::SharedMut::new(&mut values);
            team.run(n, 1, &|range: Range<usize>| {
                // SAFETY: each number comes once.
                let values = unsafe { shared.slice(range.start, range.len()) };
                values.iter_mut().for_each(|value| *value += 1);
            });
        }
        let expected = |i: usize| (0..n_jobs).filter(|job| i < 2 + job % 63).count() as u32;
        assert!(values.iter().enumerate().all(|(i, &value)| value == expected(i)), "{threads} threads");
    }
}

#[test]
fn several_threads_and_tasks_bring_jobs() {
    let team = Team::new(3).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    let _awake = team.stay_awake();
                    count(&team, n % 50, 1);
                }
            });
        }
    });
    team.run(20, 1, &|range: Range<usize>| range.for_each(|n| count(&team, n, 1)));
}

#[test]
fn a_panic_is_the_callers_and_the_team_goes_on() {
    let team = Team::new(4).unwrap();
    for round in 0..200 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            team.run(64, 1, &|range: Range<usize>| {
                if range.contains(&(round % 64)) {
                    resume_unwind(Box::new(round)); // a panic without a message on the screen
                }
            });
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&round));
        count(&team, 64, 1);
    }
}

/// Whoever is at work when the others are done may be on any thread: the caller waits for it.
#[test]
fn the_last_one_is_waited_for() {
    let team = Team::new(2).unwrap();
    let n_done = AtomicUsize::new(0);
    let begun = Instant::now();
    team.run(2, 1, &|_: Range<usize>| {
        std::thread::sleep(Duration::from_millis(30));
        n_done.fetch_add(1, Relaxed);
    });
    assert_eq!(n_done.load(Relaxed), 2);
    assert!(begun.elapsed() >= Duration::from_millis(30));
}

/// Both threads are at work at once, even when one is asleep at first.
#[test]
fn a_sleeping_worker_is_woken() {
    let team = Team::new(2).unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2)); // turned enough: it sleeps
        let n_here = AtomicUsize::new(0);
        team.run(2, 1, &|_: Range<usize>| {
            n_here.fetch_add(1, Relaxed);
            let begun = Instant::now();
            while n_here.load(Relaxed) < 2 {
                assert!(begun.elapsed() < Duration::from_secs(20), "alone");
                std::thread::yield_now();
            }
        });
    }
}

/// Not a test: what a job costs. `cargo test --release -p komt-kernels --lib -- --ignored --nocapture join_time`
#[test]
#[ignore = "measures"]
fn join_time() {
    const N_JOBS: u32 = 100_000;
    for threads in [1, 2, 4] {
        let team = Team::new(threads).unwrap();
        let _awake = team.stay_awake();
        let begun = Instant::now();
        for _ in 0..N_JOBS {
            team.run(16 * threads, 1, &|range: Range<usize>| _ = std::hint::black_box(range));
        }
        println!("{threads} threads: {:?} a job", begun.elapsed() / N_JOBS);
    }
}

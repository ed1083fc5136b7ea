//! The page pool and the tables against a naive model: a map from (sequence, position) to what was stored there.

use komt_cache::{Error, Logits, PAGE, PagePool, PageTable, StepPlan, first_visible, ring_len};
use proptest::prelude::*;
use std::collections::HashMap;

#[test]
fn a_full_pool_says_what_is_missing_and_takes_nothing() {
    let mut pool = PagePool::new(2);
    let mut table = PageTable::new(8);
    table.extend(&mut pool, PAGE).unwrap();
    let error = table.extend(&mut pool, 2 * PAGE).unwrap_err();
    assert_eq!(error, Error::NoFreePages { needed: 2, free: 1, total: 2 });
    assert_eq!(error.to_string(), "KV cache: 2 more pages of 16 tokens needed, 1 of 2 free");
    assert_eq!((table.len(), table.n_pages(), pool.n_free()), (PAGE, 1, 1));
    table.extend(&mut pool, PAGE).unwrap();
}

#[test]
fn a_ring_writes_again_over_its_oldest_page() {
    let mut pool = PagePool::new(8);
    let mut table = PageTable::new(3);
    for _ in 0..51 {
        table.extend(&mut pool, 1).unwrap();
    }
    assert_eq!((table.len(), table.oldest(), table.n_pages(), pool.n_free()), (51, 16, 3, 5));
    assert_eq!(table.slot(48), table.slot(0));
    table.clear(&mut pool);
    assert_eq!(pool.n_free(), 8);
}

#[test]
fn truncation_gives_pages_back_and_refuses_what_the_ring_has_lost() {
    let mut pool = PagePool::new(8);
    let mut table = PageTable::new(8);
    table.extend(&mut pool, 40).unwrap();
    assert_eq!(table.truncate(&mut pool, 50, None), 40);
    assert_eq!(table.truncate(&mut pool, 20, None), 20);
    assert_eq!(pool.n_free(), 6);

    let mut ring = PageTable::new(2);
    ring.extend(&mut pool, 20).unwrap();
    ring.extend(&mut pool, 20).unwrap(); // positions 32..40 lie over 0..8
    assert_eq!(ring.oldest(), 16);
    assert_eq!(ring.truncate(&mut pool, 12, Some(8)), 0);
    assert!(ring.is_empty());
    assert_eq!(pool.n_free(), 6);
}

#[test]
fn a_fork_shares_full_pages_and_truncation_never_opens_a_shared_one() {
    let mut pool = PagePool::new(8);
    let mut a = PageTable::new(8);
    a.extend(&mut pool, 40).unwrap();
    let mut b = a.fork(&mut pool, None);
    assert_eq!((b.len(), pool.n_free()), (32, 5));
    assert_eq!(b.slot(31), a.slot(31));
    assert_eq!(a.truncate(&mut pool, 20, None), 16, "20 lies in a page that b reads");
    a.extend(&mut pool, 1).unwrap();
    assert_ne!(a.slot(16), b.slot(16));
    a.clear(&mut pool);
    b.clear(&mut pool);
    assert_eq!(pool.n_free(), 8);
}

/// Runs random extend / fork / truncate / clear over a few sequences. After each, every position that a query may see
/// must still hold its own (sequence, position) mark, and the pool must account for every page.
fn check(window: Option<usize>, max_chunk: usize, n_pages: usize, operations: &[(u8, usize, usize)]) {
    let table_len = ring_len(window, max_chunk, 160);
    let mut pool = PagePool::new(n_pages);
    let mut tables: Vec<(PageTable, Vec<u32>)> = vec![]; // with the mark of each position
    let mut memory: HashMap<u32, u32> = HashMap::new(); // slot -> mark
    let mut next_mark = 0;
    for &(operation, which, n) in operations {
        let i = which % tables.len().max(1);
        match operation % 5 {
            0 => tables.push((PageTable::new(table_len), vec![])),
            _ if tables.is_empty() => {}
            1 | 2 => {
                let (table, marks) = &mut tables[i];
                let n = (n % max_chunk + 1).min(160 - table.len());
                let (before, needed) = (pool.n_free(), table.needed(&pool, n));
                match table.extend(&mut pool, n) {
                    Ok(()) => {
                        for pos in table.len() - n..table.len() {
                            memory.insert(table.slot(pos), next_mark);
                            marks.push(next_mark);
                            next_mark += 1;
                        }
                        // Store, then attend: the first query of this very chunk is the one that needs most.
                        let first_query = table.len() - n.max(1);
                        assert!(n == 0 || first_visible(first_query, window) >= table.oldest());
                    }
                    Err(_) => assert!(needed > before && pool.n_free() == before),
                }
            }
            3 => {
                let fork = tables[i].0.fork(&mut pool, window);
                let marks = tables[i].1[..fork.len()].to_vec();
                tables.push((fork, marks));
            }
            _ if n % 3 == 0 => {
                let (mut table, _) = tables.swap_remove(i);
                table.clear(&mut pool);
            }
            _ => {
                let (table, marks) = &mut tables[i];
                let len = table.truncate(&mut pool, n % 160, window);
                marks.truncate(len);
            }
        }
        let mut used: HashMap<u32, u32> = HashMap::new();
        for (table, marks) in &tables {
            assert_eq!(table.len(), marks.len());
            let from = first_visible(table.len(), window);
            assert!(
                from >= table.oldest(),
                "the next query sees {from}.., the ring holds {}..",
                table.oldest()
            );
            for pos in from..table.len() {
                assert_eq!(memory[&table.slot(pos)], marks[pos], "position {pos} was overwritten");
            }
            for pos in (from / PAGE * PAGE..table.len()).step_by(PAGE) {
                *used.entry(table.slot(pos) / PAGE as u32).or_default() += 1;
            }
        }
        for (page, n) in used {
            assert!(pool.ref_count(page) >= n);
        }
    }
    for (mut table, _) in tables {
        table.clear(&mut pool);
    }
    assert_eq!(pool.n_free(), n_pages, "pages leaked or freed twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_visible_key_is_its_own(
        window in proptest::option::of(1usize..70), max_chunk in 1usize..40, n_pages in 1usize..40,
        operations in proptest::collection::vec((any::<u8>(), 0usize..8, 0usize..1000), 1..80),
    ) {
        check(window, max_chunk, n_pages, &operations);
    }
}

#[test]
fn padding_rows_write_nothing() {
    let mut pool = PagePool::new(4);
    let mut table = PageTable::new(2);
    table.extend(&mut pool, 1).unwrap();
    let mut plan = StepPlan::new(2);
    plan.push(&table, 0, &[7], Logits::Last);
    assert!(plan.is_decode());
    plan.pad_to(4);
    assert!(plan.is_decode());
    assert_eq!((plan.dims().n_tokens, plan.dims().n_seqs, plan.dims().n_logits), (4, 4, 4));
    assert_eq!(&plan.slots[1..], [komt_cache::PAD_SLOT; 3]);
    assert_eq!(plan.q_start, [0, 1, 2, 3, 4]);
    plan.clear();
    assert_eq!(plan.dims(), Default::default());
}

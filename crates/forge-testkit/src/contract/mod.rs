//! Contract suites: what every adapter of a port has to show. [`model`] says how its own is used.
//!
//! For the others an adapter names a function that makes one and gets one test per promise:
//!
//! ```ignore
//! forge_testkit::journal_contract!(make); // fn make() -> (impl Journal + Ledger, keep-alive)
//! forge_testkit::feed_contract!(make);    // fn make() -> (impl Journal + Feed, another on its data, keep-alive)
//! forge_testkit::scheduling_contract!(make); // fn make() -> (Scheduler, keep-alive)
//! forge_testkit::queue_contract!(make);   // fn make() -> (Arc<dyn Queue>, Arc<dyn Queue>, keep-alive)
//! forge_testkit::fence_contract!(make);   // fn make() -> (impl Journal + Ledger, Arc<dyn Queue>, keep-alive)
//! forge_testkit::heartbeat_contract!(make); // only if leases expire; see there
//! ```

pub mod feed;
pub mod fence;
pub mod heartbeat;
pub mod journal;
pub mod ledger;
pub mod model;
pub mod queue;
pub mod scheduling;

/// One test per promise of the journal and the ledger.
///
/// The argument is a function that gives an empty store (`Journal + Ledger`) and something that is
/// kept as long as the store is used.
#[macro_export]
macro_rules! journal_contract {
    ($make:path) => {
        $crate::journal_contract! { @cases $make, journal:
            events_are_read_in_the_order_in_which_they_were_appended
            a_run_that_nobody_wrote_has_no_events
            a_batch_after_another_end_is_a_conflict_and_writes_nothing
            a_batch_with_wrong_numbers_is_refused
            of_many_writers_of_one_position_one_wins
            runs_are_appended_to_concurrently
            a_batch_waits_for_its_flush_and_no_other_does
            payloads_come_back_by_their_hash
            a_batch_without_events_still_writes_the_rest
            commands_wait_in_order_until_they_are_taken
            a_command_is_taken_once
            the_newest_checkpoint_replaces_the_one_before
            lists_are_filtered_and_newest_first
            a_list_can_be_read_in_pages
            a_row_comes_back_as_it_was_written
            every_change_moves_the_counter
            a_watcher_of_a_run_sees_the_changes_of_that_run
        }
        $crate::journal_contract! { @cases $make, ledger:
            reservations_become_spending_when_settled
            a_ceiling_is_refused_and_nothing_is_written
            reservations_of_a_dead_run_are_released
            an_account_without_ceiling_is_only_booked
            the_same_reservation_again_replaces_the_first
            concurrent_reservations_never_pass_a_ceiling
        }
    };
    (@cases $make:path, $suite:ident: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _keep) = $make();
                $crate::contract::$suite::$case(&store).await;
            }
        )*
    };
}

/// One test per promise of a feed.
///
/// The argument is a function that gives two empty stores (`Journal + Feed`) on the same data, as two processes have
/// them, and something that is kept as long as they are used.
#[macro_export]
macro_rules! feed_contract {
    ($make:path) => {
        $crate::feed_contract! { @cases $make:
            the_feed_has_all_events_in_the_order_of_their_commits
            a_part_of_the_feed_ends_at_its_limit
            what_is_refused_is_not_in_the_feed
            who_continues_from_the_last_position_misses_and_repeats_nothing
            an_append_of_another_process_wakes_the_watcher_of_the_feed
            a_position_can_be_stored
        }
    };
    (@cases $make:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (one, other, _keep) = $make();
                $crate::contract::feed::$case(&one, &other).await;
            }
        )*
    };
}

/// One test per promise of a journal and a queue on the same data.
///
/// The argument is a function that gives a [`scheduling::Scheduler`] on empty data, and something that is kept as long as
/// it is used.
#[macro_export]
macro_rules! scheduling_contract {
    ($make:path) => {
        $crate::scheduling_contract! { @cases $make:
            a_run_is_queued_by_the_batch_that_creates_it
            children_are_created_with_the_batch_of_their_parent
            a_command_queues_a_parked_run
            a_run_with_commands_is_queued_instead_of_parked
            a_parked_run_is_queued_at_its_time
        }
    };
    (@cases $make:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _keep) = $make();
                $crate::contract::scheduling::$case(store).await;
            }
        )*
    };
}

/// One test per promise of a queue.
///
/// The argument is a function that gives two queues on the same data, as two processes have them, and something
/// that is kept as long as they are used.
#[macro_export]
macro_rules! queue_contract {
    ($make:path) => {
        $crate::queue_contract! { @cases $make:
            a_claimed_run_is_held_until_its_lease_ends
            of_many_claimers_one_wins
            the_next_one_is_chosen_by_priority_then_age
            an_item_that_is_queued_again_has_its_new_priority
            a_finished_item_is_gone
            an_item_can_be_given_back
            an_item_whose_owner_died_is_claimed_again
            any_run_can_be_claimed_by_name
            an_idle_run_has_the_number_of_its_last_claim
            a_held_lease_can_be_renewed
            a_parked_item_is_not_claimed_until_it_is_queued
            a_tree_is_claimed_on_its_own
        }
    };
    (@cases $make:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (one, other, _keep) = $make();
                $crate::contract::queue::$case(one, other).await;
            }
        )*
    };
}

/// One test per promise of a store and a queue on the fencing numbers of claims.
///
/// The argument is a function that gives an empty store (`Journal + Ledger`), a queue that belongs to it, and something
/// that is kept as long as they are used.
#[macro_export]
macro_rules! fence_contract {
    ($make:path) => {
        $crate::fence_contract! { @cases $make:
            a_batch_of_an_earlier_claim_is_refused
            reservations_are_released_only_for_the_last_claim
        }
    };
    (@cases $make:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, queue, _keep) = $make();
                $crate::contract::fence::$case(&store, queue).await;
            }
        )*
    };
}

/// One test per promise of a queue with leases that expire.
///
/// The argument is a function that gives an empty store (`Journal`), two queues on it, as two processes have them, a
/// function that lets so much time pass (`AsyncFn(Duration)`), and something that is kept as long as they are used.
#[macro_export]
macro_rules! heartbeat_contract {
    ($make:path) => {
        $crate::heartbeat_contract! { @cases $make:
            a_lease_that_is_renewed_is_kept
            a_worker_whose_heartbeat_stops_is_replaced_and_writes_nothing_more
            an_expired_item_comes_next_in_the_queue
        }
    };
    (@cases $make:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, one, other, pass_time, _keep) = $make();
                $crate::contract::heartbeat::$case(&store, one, other, pass_time).await;
            }
        )*
    };
}

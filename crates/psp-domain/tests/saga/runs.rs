use std::collections::BTreeSet;

use proptest::prelude::*;
use psp_domain::ports::{AuthorizationResult, RefundStore};
use psp_domain::usecases::OrderSaga;
use psp_domain::{EventKind, OrderPaymentStatus, OrderStatus};
use psp_testkit::fixtures;

use crate::interruptions::Interruption;
use crate::support::{Mood, TOTAL, Wish, World};

/// More messages than any run handles before its last wish.
const STEPS: usize = 12;

async fn ended(mood: Mood, wishes: &[(usize, Wish)]) -> (OrderStatus, Option<OrderPaymentStatus>) {
    let (world, _) = interrupted(Interruption::Kill, BTreeSet::new(), mood, wishes).await;
    world.allowed_end().await
}

/// A run in order, interrupted at those places; and how many places there were.
async fn interrupted(
    interruption: Interruption,
    at: BTreeSet<usize>,
    mood: Mood,
    wishes: &[(usize, Wish)],
) -> (World, usize) {
    let mut world = World::new(interruption, at, wishes.to_vec());
    mood.tell(&world.gateway);
    world.place().await;
    world.run_in_order().await;
    let places = world.places.passed();
    (world, places)
}

#[tokio::test]
async fn an_order_ends_as_its_payment_does() {
    use OrderPaymentStatus::{Approved, Declined, Failed};
    assert_eq!(ended(Mood::Approves, &[]).await, (OrderStatus::Paid, Some(Approved)));
    assert_eq!(ended(Mood::Declines, &[]).await, (OrderStatus::Cancelled, Some(Declined)));
    assert_eq!(ended(Mood::IsDown, &[]).await, (OrderStatus::Failed, Some(Failed)));
    assert_eq!(ended(Mood::AnswersLater, &[]).await, (OrderStatus::Paid, Some(Approved)));
}

#[tokio::test]
async fn an_order_that_is_cancelled_gets_its_money_back_or_never_charges() {
    use OrderPaymentStatus::Refunded;
    assert_eq!(ended(Mood::Approves, &[(0, Wish::CancelOrder)]).await, (OrderStatus::Cancelled, None));
    let late = [(STEPS, Wish::CancelOrder)];
    assert_eq!(ended(Mood::Approves, &late).await, (OrderStatus::Cancelled, Some(Refunded)));
    for mood in Mood::ALL {
        for after in 0..STEPS {
            ended(mood, &[(after, Wish::CancelOrder)]).await;
        }
    }
}

#[tokio::test]
async fn a_payment_that_is_given_back_in_whole_cancels_its_order_and_in_part_does_not() {
    use OrderPaymentStatus::{Approved, Refunded};
    let after_approval = 4;
    assert_eq!(
        ended(Mood::Approves, &[(after_approval, Wish::RefundAll)]).await,
        (OrderStatus::Cancelled, Some(Refunded))
    );
    assert_eq!(ended(Mood::Approves, &[(after_approval, Wish::RefundPart)]).await, (OrderStatus::Paid, Some(Approved)));
    let both = [(after_approval, Wish::RefundPart), (after_approval, Wish::CancelOrder)];
    assert_eq!(ended(Mood::Approves, &both).await, (OrderStatus::Cancelled, Some(Refunded)));
}

/// What customers may wish, at each step.
fn wishes() -> Vec<Vec<(usize, Wish)>> {
    let at =
        |after| [vec![(after, Wish::CancelOrder)], vec![(after, Wish::RefundPart), (after + 1, Wish::CancelOrder)]];
    let mut wishes: Vec<_> = (0..8).flat_map(at).collect();
    wishes.push(Vec::new());
    wishes.push(vec![(4, Wish::RefundAll)]);
    wishes
}

#[tokio::test]
async fn a_worker_that_is_killed_between_any_two_steps_comes_to_an_allowed_end() {
    interrupted_anywhere(Interruption::Kill).await;
}

#[tokio::test]
async fn a_store_or_gateway_that_fails_before_or_after_any_step_comes_to_an_allowed_end() {
    interrupted_anywhere(Interruption::Fail).await;
}

async fn interrupted_anywhere(interruption: Interruption) {
    let mut runs = 0;
    for (mood, wishes) in Mood::ALL.into_iter().flat_map(|mood| wishes().into_iter().map(move |w| (mood, w))) {
        for place in 0.. {
            let (world, places) = interrupted(interruption, [place].into(), mood, &wishes).await;
            world.allowed_end().await;
            runs += 1;
            if place >= places {
                break;
            }
        }
    }
    assert!(runs > 1_000, "{runs}");
}

#[tokio::test]
async fn a_cancellation_and_other_workers_between_any_two_steps_lead_to_an_allowed_end() {
    for mood in Mood::ALL {
        for place in 0.. {
            let (world, places) = interrupted(Interruption::Others, [place].into(), mood, &[]).await;
            let (order, _) = world.allowed_end().await;
            if place >= places {
                break;
            }
            let placing = 2;
            let may_be_failed = mood == Mood::IsDown;
            assert!(place < placing || order == OrderStatus::Cancelled || may_be_failed, "{mood:?} {place}: {order:?}");
        }
    }
}

#[tokio::test]
async fn an_approval_that_is_heard_after_the_order_was_cancelled_is_given_back_by_itself() {
    let approved = 3;
    let mut world = World::new(Interruption::Kill, BTreeSet::new(), vec![(approved, Wish::CancelOrder)]);
    world.lost = Some(EventKind::OrderCancelled);
    world.place().await;
    world.run(|len| (len - 1, false)).await;
    assert_eq!(world.allowed_end().await, (OrderStatus::Cancelled, Some(OrderPaymentStatus::Refunded)));
}

#[tokio::test]
async fn the_money_of_a_cancelled_order_that_the_gateway_keeps_is_put_before_a_person() {
    let mut world = World::new(Interruption::Kill, BTreeSet::new(), vec![(4, Wish::CancelOrder)]);
    for _ in 0..OrderSaga::MAX_FAILED_REFUNDS {
        world.gateway.answer_refund(Ok(AuthorizationResult::Declined { reason: "no".into() }));
    }
    world.place().await;
    world.run_in_order().await;
    assert_eq!(world.end().await, (OrderStatus::Cancelled, Some(OrderPaymentStatus::Approved)));
    let [(message, reason)] = &world.dead[..] else { panic!("{:?}", world.dead) };
    assert!(reason.contains("the money of a cancelled order is kept"), "{reason}");
    let payment = world.payment().await.unwrap();
    let refunds = world.memory.refunds(&fixtures::customer("123"), payment).await.unwrap();
    assert_eq!(refunds.len(), OrderSaga::MAX_FAILED_REFUNDS);
    // Somebody talks to the gateway, asks for another refund, and replays the dead letter.
    world.pool.push_back((message.clone(), 0));
    world.dead.clear();
    assert!(world.wish(Wish::RefundAll).await);
    world.run_in_order().await;
    assert_eq!(world.allowed_end().await, (OrderStatus::Cancelled, Some(OrderPaymentStatus::Refunded)));
    assert_eq!(world.gateway.given_back()[0].amount.minor(), TOTAL);
}

fn any_wishes() -> impl Strategy<Value = Vec<(usize, Wish)>> {
    let wish = prop::sample::select(vec![Wish::CancelOrder, Wish::RefundAll, Wish::RefundPart]);
    prop::collection::vec((0_usize..STEPS, wish), 0..3)
}

proptest! {
    #[test]
    fn messages_in_any_order_and_more_than_once_with_steps_killed_or_failed_lead_to_an_allowed_end(
        mood in prop::sample::select(Mood::ALL.to_vec()),
        wishes in any_wishes(),
        interruption in prop::sample::select(vec![Interruption::Kill, Interruption::Fail]),
        places in prop::collection::btree_set(0_usize..80, 0..4),
        choices in prop::collection::vec((any::<usize>(), prop::bool::weighted(0.3)), 0..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(interruption, places, wishes);
            mood.tell(&world.gateway);
            world.place().await;
            let mut choices = choices.into_iter();
            let choose = |len: usize| choices.next().map_or((0, false), |(which, again)| (which % len, again));
            world.run(choose).await;
            world.allowed_end().await;
        });
    }
}

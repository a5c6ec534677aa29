//! The contracts, kept by the fakes.

mod store {
    psp_testkit::store_contract!(psp_testkit::fakes::ports);
}

mod sealed_cards {
    psp_testkit::sealed_cards_contract!(psp_testkit::fakes::ports);
}

mod queue {
    psp_testkit::queue_contract!(psp_testkit::fakes::ports);
    psp_testkit::table_queue_contract!(psp_testkit::fakes::ports);
}

mod events {
    use std::sync::Arc;

    use psp_testkit::Ports;
    use psp_testkit::clock::FixedClock;
    use psp_testkit::contract::events::EventCase;
    use psp_testkit::fakes::Memory;

    async fn case() -> EventCase {
        let clock = Arc::new(FixedClock::default());
        let memory = Arc::new(Memory::new(clock.clone()));
        let ports = Ports::of(memory.clone(), clock, ());
        EventCase { ports, read: Box::new(move || Box::pin(std::future::ready(memory.events()))) }
    }

    psp_testkit::event_contract!(self::case);
}

mod webhooks {
    psp_testkit::webhook_contract!(psp_testkit::fakes::ports);
}

mod event_store {
    psp_testkit::event_store_contract!(psp_testkit::fakes::ports);
}

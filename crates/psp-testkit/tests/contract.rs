//! The contracts, kept by the fakes.

mod store {
    psp_testkit::store_contract!(psp_testkit::fakes::ports);
}

mod queue {
    psp_testkit::queue_contract!(psp_testkit::fakes::ports);
}

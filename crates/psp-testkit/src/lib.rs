//! Fixtures, fakes and contract suites for every port; a dev-dependency only.

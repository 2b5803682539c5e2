//! The blob port's contract on all that stands behind it.

mod on_memory {
    use tidegate_integration_tests::blob_contract::Folder;
    use tidegate_integration_tests::blob_contract_tests;

    blob_contract_tests!(Folder::memory());
}

mod on_a_directory {
    use tidegate_integration_tests::blob_contract::Folder;
    use tidegate_integration_tests::blob_contract_tests;

    blob_contract_tests!(Folder::directory());
}

mod on_s3 {
    use tidegate_integration_tests::blob_contract::Folder;
    use tidegate_integration_tests::blob_contract_tests;

    blob_contract_tests!(Folder::s3());
}

//! Every attack as a test of its own, with the code that it must be refused with. What is
//! in the list of attacks and not here fails the first test.

use viworks_tests::attack::rows;

fn refused(name: &str, code: &str) {
    let row = rows().into_iter().find(|row| row.name.replace('-', "_") == name);
    let Some(row) = row else { panic!("there is no attack {name}") };
    assert_eq!(row.code, code, "{name}");
    if let Err(wrong) = row.check() {
        panic!("{wrong}");
    }
}

macro_rules! attacks {
    ($($name:ident => $code:literal,)*) => {
        $(#[test]
        fn $name() {
            refused(stringify!($name), $code);
        })*

        #[test]
        fn every_attack_is_a_test() {
            let tests = [$(stringify!($name)),*];
            let rows: Vec<String> = rows().iter().map(|row| row.name.replace('-', "_")).collect();
            assert_eq!(rows, tests);
        }
    };
}

attacks! {
    unknown_key => "E_SIGNATURE",
    wrong_role => "E_ROLE",
    below_threshold => "E_THRESHOLD",
    threshold_stuffing => "E_THRESHOLD",
    review_missing => "E_REVIEW_MISSING",
    review_of_another_release => "E_REVIEW_MISMATCH",
    provenance_alone => "E_NO_RELEASE",
    another_plugins_bundle => "E_PLUGIN",
    payload_signed_without_pae => "E_ALTERED",
    signature_of_another_type => "E_ALTERED",
    payload_type_changed => "E_PAYLOAD_TYPE",
    weak_key => "E_WEAK_KEY",
    malleable_signature => "E_MALLEABLE",
    signature_in_other_base64 => "E_MALLEABLE",
    seventeen_signatures => "E_SIGNATURES",
    hundred_thousand_signatures => "E_SIZE",
    endless_statements => "E_SIZE",
    endless_component => "E_SIZE",
    deep_json => "E_JSON_DEPTH",
    duplicate_json_key => "E_JSON_DUPLICATE",
    float_in_json => "E_JSON_FLOAT",
    byte_order_mark => "E_JSON_BOM",
    trailing_data => "E_FORMAT",
    undeclared_import => "E_IMPORTS",
    core_module_for_component => "E_CORE_MODULE",
    preamble_flipped => "E_DIGEST",
    precompiled_code_named_wasm => "E_PRECOMPILED",
    custom_section_added => "E_DIGEST",
    custom_section_moved => "E_DIGEST",
    custom_section_removed => "E_DIGEST",
    build_metadata_in_version => "E_VERSION",
    homoglyph_name => "E_NAME",
    upper_case_name => "E_NAME",
    path_in_name => "E_NAME",
    nul_in_name => "E_NAME",
    two_subjects => "E_SUBJECT",
    two_releases => "E_AMBIGUOUS",
    digest_of_other_bytes => "E_DIGEST",
    metadata_rollback => "E_TUF_ROLLBACK",
    targets_dropped => "E_TUF_ROLLBACK",
    role_version_rollback => "E_TUF_ROLLBACK",
    freeze => "E_TUF_EXPIRED",
    clock_set_back_ten_years => "E_TUF_EXPIRED",
    clock_set_ahead_ten_years => "E_TUF_EXPIRED",
    endless_metadata => "E_TUF_SIZE",
    metadata_a_byte_too_long => "E_TUF_SIZE",
    thirty_three_signatures => "E_TUF_SIGNATURES",
    hundred_thousand_metadata_signatures => "E_TUF_SIZE",
    deep_metadata => "E_TUF_FORMAT",
    duplicate_key_in_metadata => "E_TUF_FORMAT",
    float_in_metadata => "E_TUF_FORMAT",
    byte_order_mark_in_metadata => "E_TUF_FORMAT",
    snapshot_with_older_targets => "E_TUF_MIXED",
    snapshot_that_the_timestamp_does_not_name => "E_TUF_MIXED",
    metadata_below_its_threshold => "E_TUF_THRESHOLD",
    metadata_by_the_wrong_role => "E_TUF_THRESHOLD",
    metadata_by_an_unknown_key => "E_TUF_THRESHOLD",
    one_key_under_two_ids => "E_TUF_THRESHOLD",
    malleable_metadata_signature => "E_TUF_THRESHOLD",
    weak_key_in_metadata => "E_TUF_KEY",
    one_key_for_two_roles => "E_TUF_KEY_ROLES",
    fast_forward_by_a_stolen_key => "E_TUF_THRESHOLD",
    root_version_skipped => "E_TUF_ROOT",
    root_signed_by_the_old_keys_alone => "E_TUF_ROOT",
    root_signed_by_the_new_keys_alone => "E_TUF_ROOT",
    same_version_with_a_new_digest => "E_TUF_REPLACED",
    homoglyph_in_a_target => "E_TUF_FORMAT",
    upper_case_in_a_target => "E_TUF_NAME",
    path_in_a_target => "E_TUF_NAME",
    nul_in_a_target => "E_TUF_FORMAT",
    build_metadata_in_a_target => "E_TUF_NAME",
    delegation_by_a_delegated_role => "E_TUF_DELEGATION",
    revocations_emptied => "E_TUF_REVOCATIONS",
    revocations_gone => "E_TUF_REVOCATIONS",
    target_of_a_role_that_may_not => "E_TUF_TARGET",
    target_with_other_bytes => "E_TUF_MIXED",
    revoked_digest => "E_REVOKED_DIGEST",
    revoked_sequence => "E_REVOKED_SEQUENCE",
    release_that_the_repository_does_not_name => "E_TUF_TARGET",
    statements_of_another_signing => "E_TUF_MIXED",
    bytes_that_were_not_offered => "E_DIGEST",
    import_without_a_grant => "E_IMPORT",
    file_replaced_after_verification => "E_DIGEST",
    compiled_code_swapped => "E_AOT",
    compiled_code_of_another_engine => "E_AOT",
    compiled_code_by_a_symlink => "E_AOT",
    mutated_compiled_code_x1000 => "E_AOT",
    older_release => "E_ROLLBACK",
    state_deleted => "E_ROLLBACK",
    power_cut_in_mid_write => "E_REVOKED_DIGEST",
    failed_update_that_poisons_the_cache => "E_SIGNATURE",
    release_by_a_revoked_key => "E_REVOKED_KEY",
    release_with_a_revoked_digest => "E_REVOKED_DIGEST",
    release_below_a_revoked_sequence => "E_REVOKED_SEQUENCE",
    mutated_bundle_x1000 => "E_ANY",
    mutated_component_x1000 => "E_DIGEST",
    mutated_metadata_x1000 => "E_ANY",
}

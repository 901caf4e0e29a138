//! forge-sandbox

//! Reading (not verifying) the claims of a JWT.

package coalescegrpc

// FingerprintOf is the fingerprint of any message, generated or not.
var FingerprintOf = fingerprint

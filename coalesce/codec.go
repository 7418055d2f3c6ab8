package coalesce

// Codec turns results into bytes and back. It is used by many goroutines at once.
//
// Name travels with the bytes: a replica that is told another name than its own
// codec's does not decode them and runs its own function instead, so that
// changing the codec in a rolling upgrade breaks no call. Change the name when
// the bytes change. It has 1 to 255 bytes.
//
// An error of Marshal means that v cannot travel: it is returned to the callers
// on this replica, and the other replicas run their own function.
//
// A codec may also be a Checker and a Fingerprinter.
type Codec[V any] interface {
	Name() string
	Marshal(v V) ([]byte, error)
	// Unmarshal may keep data, and its result may share data's memory.
	Unmarshal(data []byte) (V, error)
}

// Checker is what a codec also implements when it cannot carry every V as it is.
// A group asks once, when it is made, and refuses a V that would not arrive as it
// was sent, unless it is told to accept that.
type Checker interface {
	// Check returns nil, or an error that names the part of V that would be lost
	// or changed, by the path of its fields, and the ways out.
	Check() error
}

// Fingerprinter is what a codec also implements when it knows better than the
// structure of V which results it can read: a protobuf message has its own
// description of what it carries.
type Fingerprinter interface {
	// Fingerprint returns a number that is the same wherever the same results
	// are read, and another one for other results. It replaces the fingerprint
	// of V's structure. It is never 0.
	Fingerprint() uint64
}

// Raw passes bytes through without copying them, in both directions. Callers
// share the bytes and must not change them. A result that is empty may arrive as
// nil.
func Raw[B ~[]byte]() Codec[B] { return rawCodec[B]{} }

type rawCodec[B ~[]byte] struct{}

func (rawCodec[B]) Name() string                     { return "raw" }
func (rawCodec[B]) Marshal(v B) ([]byte, error)      { return v, nil }
func (rawCodec[B]) Unmarshal(data []byte) (B, error) { return data, nil }

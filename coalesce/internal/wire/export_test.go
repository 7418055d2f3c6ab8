package wire

import "reflect"

// Order is Order of package wire_test, in another package.
type Order struct {
	ID    int64 `json:"id"`
	Lines []OrderLine
	Page  Page[map[string]OrderLine]
}

// OrderLine is a part of it.
type OrderLine struct {
	Product string
	Parent  *Order
}

// Page is a generic part.
type Page[T any] struct{ Items []T }

// OrderType is the type that moved here.
var OrderType = reflect.TypeFor[Order]()

// Text is Text of package wire_test, with other fields.
type Text struct{ B, C string }

func (Text) MarshalText() ([]byte, error) { return nil, nil }

// UnmarshalText makes Text write itself.
func (*Text) UnmarshalText([]byte) error { return nil }

// TextType is its type.
var TextType = reflect.TypeFor[Text]()

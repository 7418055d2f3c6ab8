package coalesce

import "fmt"

// The methods of the errors of a caller's function are foreign code, and may panic.

func messageOf(err error) (message string) {
	defer func() {
		if value := recover(); value != nil {
			message = "fleetcall: the function returned an error that panics: " + describe(value)
		}
	}()
	if err == nil {
		return "fleetcall: no error"
	}
	return err.Error()
}

// describe prints a value that was panicked with. The fmt package survives most
// panics of its methods.
func describe(value any) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("a %T", value)
		}
	}()
	return fmt.Sprint(value)
}

func encodeTyped(r *registered, err error) (data []byte) {
	defer func() {
		if recover() != nil {
			data = nil
		}
	}()
	return r.encode(err)
}

func decodeTyped(r *registered, data []byte) (err error) {
	defer func() {
		if recover() != nil {
			err = nil
		}
	}()
	return r.decode(data)
}

package coalescetest

import (
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// rowError is an error of a type that every replica has registered.
type rowError struct {
	Table string
	Row   int
}

func (e *rowError) Error() string { return fmt.Sprintf("row %d of %s is corrupt", e.Row, e.Table) }

func fleetErrorType(x *exercise) {
	coalesce.RegisterErrorType[*rowError]("fleetcall/coalescetest.rowError")
	x.failsRemotely(
		func() (string, error) { return "", fmt.Errorf("reading: %w", &rowError{"products", 7}) },
		"an error in which errors.As finds a *rowError with its fields",
		func(err error) bool {
			var row *rowError
			return errors.As(err, &row) && *row == rowError{"products", 7}
		})
}

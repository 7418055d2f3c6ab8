package browserrig

import "testing"

// StartTest starts a browser that is closed when the test ends.
func StartTest(t testing.TB) *Browser {
	t.Helper()
	b, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// WaitFor waits until a JavaScript expression is true, and fails the test when it
// does not become true in time.
func WaitFor(t testing.TB, p *Page, expression string) {
	t.Helper()
	if err := p.WaitFor(expression); err != nil {
		t.Fatal(err)
	}
}

// Value returns the value of a JavaScript expression. It fails the test when the
// expression throws.
func Value[T any](t testing.TB, p *Page, expression string) T {
	t.Helper()
	v, err := Eval[T](p, expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

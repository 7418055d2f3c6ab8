// Package architecture holds tests of the source itself: which package may import
// which, that no public name of the library shows an internal type, and that files
// and functions stay short enough to be read at once. A test that fails says in
// a sentence what is wrong and why it is a rule.
package architecture

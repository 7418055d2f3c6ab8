// Package documents has no code but tests: they check the documents of this
// repository as a reader would use them. Its Go snippets are compiled and run, its
// links followed, and the commands, flags and variables that it names looked for in
// the program and the Makefile.
package documents

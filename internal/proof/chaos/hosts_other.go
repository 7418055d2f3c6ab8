//go:build !linux

package chaos

import "os/exec"

func namespacesMissing() string { return "Linux" }

func intoNamespaces(*exec.Cmd) {}

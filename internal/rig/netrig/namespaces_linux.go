package netrig

import (
	"os"
	"os/exec"
	"syscall"
)

// namespacesMissing says what making namespaces takes; "": nothing.
func namespacesMissing() string {
	if os.Geteuid() != 0 {
		return "root"
	}
	probe := exec.Command("true")
	IntoNamespaces(probe)
	if probe.Run() != nil {
		return "the right to make network namespaces"
	}
	return ""
}

// IntoNamespaces has the command run in network and mount namespaces of its own, in which it
// may call Start. They end with it.
func IntoNamespaces(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}

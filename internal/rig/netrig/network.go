// Package netrig makes hosts on one machine: network namespaces, linked by a bridge, that lose
// each other without a word when a test says so.
package netrig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

const bridge = "fleetcall0"

// Network is a bridge and the hosts on it. It ends with the namespaces of this process.
type Network struct {
	// Own is the host that this process is.
	Own   *Host
	hosts int
}

// Host is a network namespace with an address on the bridge. A nil Host is a process' own
// namespace, whose address is 127.0.0.1.
type Host struct {
	name string // of the namespace; "": the one that the bridge is in
	ip   string
}

// Missing says what Start lacks on this machine; "": nothing.
func Missing() string {
	for _, name := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return namespacesMissing()
}

// Start makes a network in the namespaces of this process, which IntoNamespaces has given it.
// It refuses to do so in the network of the process that has started this one.
func Start() (*Network, error) {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netrig: %w", err)
	}
	parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		return nil, fmt.Errorf("netrig: %w", err)
	}
	if here == parents {
		return nil, errors.New("netrig: this process has no network of its own")
	}
	own := &Host{ip: "10.77.0.1"}
	return &Network{Own: own, hosts: 1}, each(
		"mkdir -p /run/netns", "mount -t tmpfs tmpfs /run/netns", // names of namespaces, which end with this process
		"ip link set lo up", "ip link add "+bridge+" type bridge", "ip addr add "+own.ip+"/24 dev "+bridge, "ip link set "+bridge+" up")
}

// Host makes one more host.
func (n *Network) Host() (*Host, error) {
	n.hosts++
	h := &Host{name: fmt.Sprintf("h%d", n.hosts), ip: fmt.Sprintf("10.77.0.%d", n.hosts)}
	return h, each(
		"ip netns add "+h.name,
		"ip link add v-"+h.name+" type veth peer name eth0 netns "+h.name,
		"ip link set v-"+h.name+" master "+bridge+" up",
		"ip -n "+h.name+" addr add "+h.ip+"/24 dev eth0",
		"ip -n "+h.name+" link set eth0 up", "ip -n "+h.name+" link set lo up")
}

// IP returns the host's address.
func (h *Host) IP() string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.ip
}

// Command returns the command that runs another one on the host. Its process is the other
// one's.
func (h *Host) Command(path string, args ...string) (string, []string, error) {
	if h == nil || h.name == "" {
		return path, args, nil
	}
	ip, err := exec.LookPath("ip")
	return ip, append([]string{"netns", "exec", h.name, path}, args...), err
}

// Direction is one in which packets go, as a host sees it.
type Direction struct{ chain, link string }

var (
	In  = Direction{"INPUT", "-i"}
	Out = Direction{"OUTPUT", "-o"}
)

// Drop has the packets between the host and all others be dropped, in these directions. A nil
// Host has no network, and Drop does nothing.
func (h *Host) Drop(of ...Direction) error {
	var errs []error
	for _, d := range of {
		link := "eth0"
		if h != nil && h.name == "" {
			link = bridge
		}
		errs = append(errs, h.filter("-A", d.chain, d.link, link, "-j", "DROP"))
	}
	return errors.Join(errs...)
}

// Heal undoes every Drop.
func (h *Host) Heal() error { return h.filter("-F") }

// filter changes the host's packet filter.
func (h *Host) filter(args ...string) error {
	if h == nil {
		return nil
	}
	path, args, err := h.Command("iptables", args...)
	if err != nil {
		return err
	}
	return run(path, args...)
}

// each runs each line as a command.
func each(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if err := run(words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("netrig: %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

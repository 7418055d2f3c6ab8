package coalescegrpc

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// method is one whose calls are merged.
type method struct {
	name           string // in full: /package.Service/Method
	request, reply uint64 // fingerprints
	replyType      protoreflect.MessageType
}

var errNoMethods = errors.New("no method is named, and nothing would be merged")

// methodsOf looks the methods up among the services that are linked into the program.
func methodsOf(names []string) (map[string]*method, error) {
	if len(names) == 0 {
		return nil, errNoMethods
	}
	methods := make(map[string]*method, len(names))
	for _, name := range names {
		m, err := methodOf(name)
		if err != nil {
			return nil, fmt.Errorf("method %q: %w", name, err)
		}
		methods[name] = m
	}
	return methods, nil
}

func methodOf(name string) (*method, error) {
	serviceName, short, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !ok || !strings.HasPrefix(name, "/") {
		return nil, errors.New("it has to be written /package.Service/Method, as generated code has it in Service_Method_FullMethodName")
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(serviceName))
	service, ok := found.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return nil, fmt.Errorf("there is no service %s in this program: import the package that was generated for it", serviceName)
	}
	described := service.Methods().ByName(protoreflect.Name(short))
	switch {
	case described == nil:
		return nil, fmt.Errorf("service %s has %s", serviceName, strings.Join(unary(service), ", "))
	case described.IsStreamingClient() || described.IsStreamingServer():
		return nil, errors.New("it streams, and only unary calls are merged")
	}
	replyType, err := protoregistry.GlobalTypes.FindMessageByName(described.Output().FullName())
	if err != nil {
		return nil, fmt.Errorf("its reply: %w", err)
	}
	return &method{name: name, request: fingerprint(described.Input()), reply: fingerprint(described.Output()), replyType: replyType}, nil
}

// unary returns the names of a service's methods that can be merged.
func unary(service protoreflect.ServiceDescriptor) []string {
	var names []string
	for i := range service.Methods().Len() {
		if m := service.Methods().Get(i); !m.IsStreamingClient() && !m.IsStreamingServer() {
			names = append(names, string(m.Name()))
		}
	}
	return names
}

// Package deploy holds what runs fleetcall beside its replicas.
package deploy

import _ "embed"

// NginxConf is the balancer's configuration. It includes listen.conf and
// upstream.conf, which have to be written beside it, and keeps its files in
// the prefix nginx is started with.
//
//go:embed nginx.conf
var NginxConf []byte

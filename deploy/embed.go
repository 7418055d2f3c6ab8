// Package deploy holds the files with which fleetcall is deployed, and embeds those
// that the program itself needs.
package deploy

import _ "embed"

// NginxConf is the configuration of the balancer. It includes listen.conf and
// upstream.conf from the same directory, and stores its temporary files in the prefix
// that nginx is started with.
//
//go:embed nginx.conf
var NginxConf []byte

// A container registry that asks for a login, for a scenario: see ../build.
module acb.dev/e2e/registry

go 1.25.0

require github.com/google/go-containerregistry v0.21.4

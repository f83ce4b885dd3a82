# A machine with the module, on which two clients meet: nix-build .packaging/nixos/test.nix
{ pkgs ? import <nixpkgs> { } }:
pkgs.testers.runNixOSTest {
  name = "wormhole-mailbox";
  nodes.machine = {
    imports = [ ./module.nix ];
    services.wormhole-mailbox = { enable = true; settings.motd = "Welcome."; };
    environment.systemPackages = [ pkgs.magic-wormhole pkgs.curl ];
  };
  testScript = ''
    machine.wait_for_unit("wormhole-mailbox.service")
    machine.succeed("curl -sf http://127.0.0.1:4000/ | grep Relay")
    wormhole = "wormhole --relay-url=ws://127.0.0.1:4000/v1"
    machine.execute(f"{wormhole} send --text=hello --code=1-test-code >/dev/null 2>&1 &")
    machine.succeed(f"{wormhole} receive --only-text 1-test-code | grep hello")
    machine.succeed("systemctl reload wormhole-mailbox.service")
    machine.succeed("systemctl restart wormhole-mailbox.service")
    machine.wait_for_open_port(4000)
  '';
}

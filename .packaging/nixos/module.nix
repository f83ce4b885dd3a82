# `imports = [ ./module.nix ]; services.wormhole-mailbox.enable = true;`
{ config, lib, pkgs, ... }:
let
  cfg = config.services.wormhole-mailbox;
  line = name: value:
    if value == true then "${name}\n"
    else if value == false || value == null then ""
    else if builtins.isList value then lib.concatMapStrings (line name) value
    else "${name} = ${toString value}\n";
  options = pkgs.writeText "wormhole-mailbox.conf"
    (lib.concatStrings (lib.mapAttrsToList line cfg.settings));
in
{
  options.services.wormhole-mailbox = {
    enable = lib.mkEnableOption "the Magic Wormhole mailbox server";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      description = "The package to run.";
    };
    settings = lib.mkOption {
      type = with lib.types; attrsOf (nullOr (oneOf [ bool int str (listOf str) ]));
      default = { };
      example = { motd = "Welcome."; limit-exempt = [ "192.0.2.0/24" ]; };
      description = "Options as in `wormhole-mailbox --help`, without dashes.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Listen on all addresses and open the port, for clients without a proxy.";
    };
    port = lib.mkOption {
      type = lib.types.port;
      default = 4000;
      description = "The port to listen on.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.wormhole-mailbox.settings = {
      port = lib.mkDefault
        (if cfg.openFirewall then toString cfg.port else "127.0.0.1:${toString cfg.port}");
      usage-db = lib.mkDefault "usage.sqlite";
      blur-usage = lib.mkDefault 3600;
    };
    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall cfg.port;
    users.users.wormhole-mailbox = { isSystemUser = true; group = "wormhole-mailbox"; };
    users.groups.wormhole-mailbox = { };
    environment.etc."wormhole-mailbox.conf".source = options;
    # The unit as it is everywhere, and what is different here.
    systemd.packages = [ cfg.package ];
    systemd.services.wormhole-mailbox = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ options ];
      stopIfChanged = false; # a restart keeps all connections
      path = [ ];
      serviceConfig = {
        ExecStart = [ "" "${cfg.package}/bin/wormhole-mailbox --config=/etc/wormhole-mailbox.conf" ];
        ExecReload = [ "" "${pkgs.coreutils}/bin/kill -HUP $MAINPID" ];
      } // lib.optionalAttrs cfg.openFirewall { IPAddressAllow = "any"; IPAddressDeny = ""; };
    };
  };
}

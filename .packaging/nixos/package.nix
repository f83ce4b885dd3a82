{ lib, rustPlatform }:
rustPlatform.buildRustPackage {
  pname = "wormhole-mailbox";
  version = "0.1.0";
  src = lib.sourceByRegex ../.. [
    "\\.cargo.*" "\\.packaging.*" "Cargo\\..*" "LICENSE" "README.md" "benches.*" "src.*"
  ];
  cargoLock.lockFile = ../../Cargo.lock;
  doCheck = false; # the tests need other programs
  postInstall = ''
    install -D -m 0644 .packaging/wormhole-mailbox.service \
      $out/lib/systemd/system/wormhole-mailbox.service
    mkdir -p $out/share/man/man8
    $out/bin/wormhole-mailbox --generate=man > $out/share/man/man8/wormhole-mailbox.8
  '';
  meta = {
    description = "Magic Wormhole mailbox server";
    license = lib.licenses.mit;
    mainProgram = "wormhole-mailbox";
    platforms = lib.platforms.unix;
  };
}

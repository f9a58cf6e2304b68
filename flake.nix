{
  description = "netcat over a TCP/IP stack of its own, past the host's firewall";
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "netkat";
          version = (fromTOML (builtins.readFile ./Cargo.toml)).package.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          # An unwrapped clang: the wrapper's flags are for this machine, the eBPF programs are for another.
          nativeBuildInputs = [ pkgs.llvmPackages.clang-unwrapped pkgs.pkg-config pkgs.installShellFiles ];
          buildInputs = [ pkgs.elfutils pkgs.zlib pkgs.linuxHeaders ];
          NIX_CFLAGS_COMPILE = "-I${pkgs.linuxHeaders}/include";
          # The tests make network namespaces, which the build's sandbox has not.
          doCheck = false;
          postInstall = ''
            for page in man bash zsh fish; do $out/bin/netkat --generate $page >netkat.$page; done
            mv netkat.man netkat.1
            installManPage netkat.1
            installShellCompletion netkat.{bash,zsh,fish}
          '';
          meta.mainProgram = "netkat";
        };
      });
    };
}

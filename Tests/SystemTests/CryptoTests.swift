import System
import Testing

@Suite struct CryptoTests {
    @Test func `digests agree with their standards`() {
        #expect(Crypto.sha1(Array("abc".utf8)) == bytes(hex: "a9993e364706816aba3e25717850c26c9cd0d89d"))
        #expect(
            Crypto.sha256(Array("abc".utf8))
                == bytes(hex: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
        #expect(
            Crypto.sha256([])
                == bytes(hex: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
        // RFC 4231, case 2.
        #expect(
            Crypto.hmacSHA256(key: Array("Jefe".utf8), Array("what do ya want for nothing?".utf8))
                == bytes(hex: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"))
        // RFC 5869, case 1.
        #expect(
            Crypto.hkdfSHA256(
                secret: [UInt8](repeating: 0x0b, count: 22), salt: bytes(hex: "000102030405060708090a0b0c"),
                info: bytes(hex: "f0f1f2f3f4f5f6f7f8f9"), count: 42)
                == bytes(
                    hex: "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"))
    }

    @Test func `a websocket's accept key is the RFC's`() {
        let digest = Crypto.sha1(Array("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8))
        #expect(Base64.encode(digest) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    }

    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="),
    ])
    func `base64 agrees with its standard`(plain: String, encoded: String) {
        #expect(Base64.encode(Array(plain.utf8)) == encoded)
        #expect(Base64.decode(encoded) == Array(plain.utf8))
        let url = encoded.filter { $0 != "=" }
        #expect(Base64.encode(Array(plain.utf8), .url) == url)
        #expect(Base64.decode(url, .url) == Array(plain.utf8))
        #expect(Base64.decode(encoded, .url) == Array(plain.utf8))
    }

    @Test(arguments: ["Zg", "Zg=", "Z", "Zg==Zg==", "Zm9=", "Zh==", "Zm 9v", "Zm9v\n", "====", "Zm9v====", "Zm-v"])
    func `base64 that no encoder writes is refused`(text: String) {
        #expect(Base64.decode(text) == nil)
    }

    @Test func `every byte survives both alphabets`() {
        var random = SeededGenerator(seed: 3)
        for count in 0..<200 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            #expect(Base64.decode(Base64.encode(bytes)) == bytes)
            #expect(Base64.decode(Base64.encode(bytes, .url), .url) == bytes)
        }
    }

    @Test func `secrets compare by their content`() {
        #expect(Crypto.areEqual([1, 2, 3], [1, 2, 3]))
        #expect(!Crypto.areEqual([1, 2, 3], [1, 2, 4]))
        #expect(!Crypto.areEqual([1, 2, 3], [1, 2]))
        #expect(Crypto.randomBytes(32) != Crypto.randomBytes(32))
    }

    // MARK: Signatures

    /// RFC 7515, appendix A.3, and RFC 8037, appendix A.4.
    @Test func `the signatures in the standards are valid, and no longer when a bit changes`() throws {
        let p256 = try PublicKey(
            p256X: base64url("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
            y: base64url("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"))
        let claims =
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        expectValid(
            p256, claims, "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
        let ed25519 = try PublicKey(ed25519: base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"))
        expectValid(
            ed25519, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
    }

    private func base64url(_ text: String) -> [UInt8] { Base64.decode(text, .url) ?? [] }

    private func expectValid(_ key: PublicKey, _ message: String, _ signature: String) {
        let bytes = base64url(signature)
        let message = Array(message.utf8)
        #expect(key.isValid(bytes, over: message))
        #expect(!key.isValid(bytes, over: (message + [0])))
        #expect(!key.isValid([], over: message))
        #expect(!key.isValid(Array(bytes.dropLast()), over: message))
        var changed = bytes
        changed[17] ^= 1
        #expect(!key.isValid(changed, over: message))
    }

    @Test(arguments: SignatureAlgorithm.allCases)
    func `a generated key signs, and survives PEM in both halves`(algorithm: SignatureAlgorithm) throws {
        let key = try PrivateKey.generate(algorithm)
        #expect(key.algorithm == algorithm)
        let again = try PrivateKey(pem: key.pem)
        let verifier = try PublicKey(pem: key.publicKey.pem)
        #expect(verifier.algorithm == algorithm)
        for index in 0..<20 {
            let message = Array("message \(index)".utf8)
            let signature = try again.sign(message)
            #expect(verifier.isValid(signature, over: message))
            if algorithm == .es256 { #expect(signature.count == 64) }
        }
        let stranger = try PrivateKey.generate(algorithm)
        #expect(!verifier.isValid(try stranger.sign([1]), over: [1]))
    }

    @Test func `an RSA key by its numbers is the key`() throws {
        // The modulus stands in the text form of the key that the openssl program prints.
        let key = try PrivateKey.generate(.rs256)
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        try File.replaceAtomically(directory + "/key.pem", with: key.pem)
        let printed = try ChildProcess.run("openssl", ["rsa", "-in", directory + "/key.pem", "-noout", "-modulus"])
        let hex = try #require(printed.output.split(separator: "=").last).filter { !$0.isWhitespace }
        let byNumbers = try PublicKey(rsaModulus: bytes(hex: String(hex)), exponent: [1, 0, 1])
        #expect(byNumbers.isValid(try key.sign([1, 2]), over: [1, 2]))
    }

    @Test func `weak and foreign keys are refused with a reason`() {
        let weak = #expect(throws: SystemError.self) {
            try PublicKey(rsaModulus: [UInt8](repeating: 0xff, count: 128), exponent: [1, 0, 1])
        }
        #expect(weak?.message == "RSA keys have at least 2048 bits")
        #expect(throws: SystemError.self) {
            try PublicKey(p256X: [UInt8](repeating: 1, count: 32), y: [UInt8](repeating: 1, count: 32))
        }
        #expect(throws: SystemError.self) { try PublicKey(p256X: [1], y: [2]) }
        #expect(throws: SystemError.self) { try PublicKey(ed25519: [1, 2, 3]) }
        #expect(throws: SystemError.self) { try PublicKey(pem: "no key") }
        #expect(throws: SystemError.self) { try PrivateKey(pem: "") }
        #expect(throws: SystemError.self) { try PrivateKey(p256Secret: [UInt8](repeating: 0, count: 32)) }
        #expect(throws: SystemError.self) { try PrivateKey(p256Secret: [UInt8](repeating: 255, count: 32)) }
    }

    // MARK: Web Push

    /// The example of RFC 8291, section 5: agreement, derivation and encryption in one.
    @Test func `the example of the web push standard is reproduced`() throws {
        let server = try PrivateKey(p256Secret: base64url("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
        let receiver = try PrivateKey(p256Secret: base64url("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
        let serverPoint = try #require(try server.publicKey.p256Point)
        let receiverPoint = try #require(try receiver.publicKey.p256Point)
        #expect(
            Base64.encode(receiverPoint, .url)
                == "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
        let secret = try server.agree(with: PublicKey(p256Point: receiverPoint))
        #expect(secret == (try receiver.agree(with: PublicKey(p256Point: serverPoint))))
        let authentication = base64url("BTBZMqHH6r4Tts7J_aSIgg")
        let salt = base64url("DGv6ra1nlYgDCS1FRnbzlw")
        let key = Crypto.hkdfSHA256(
            secret: secret, salt: authentication,
            info: Array("WebPush: info\0".utf8) + receiverPoint + serverPoint, count: 32)
        let contentKey = Crypto.hkdfSHA256(
            secret: key, salt: salt, info: Array("Content-Encoding: aes128gcm\0".utf8), count: 16)
        let nonce = Crypto.hkdfSHA256(secret: key, salt: salt, info: Array("Content-Encoding: nonce\0".utf8), count: 12)
        #expect(Base64.encode(contentKey, .url) == "oIhVW04MRdy2XN9CiKLxTg")
        #expect(Base64.encode(nonce, .url) == "4h_95klXJ5E_qnoN")
        let sealed = try Crypto.sealAES128GCM(
            Array("When I grow up, I want to be a watermelon".utf8) + [2], key: contentKey, nonce: nonce)
        #expect(
            Base64.encode(sealed, .url)
                == "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1VhjVkHsUoEsbI_0LpXMuGvnzQ")
        #expect(
            try Crypto.openAES128GCM(sealed, key: contentKey, nonce: nonce).dropLast()
                == Array("When I grow up, I want to be a watermelon".utf8)[...])
    }

    @Test func `sealed data opens only unchanged, with its key and its header`() throws {
        let key = Crypto.randomBytes(16)
        let nonce = Crypto.randomBytes(12)
        let sealed = try Crypto.sealAES128GCM([1, 2, 3], key: key, nonce: nonce, authenticating: [9])
        #expect(try Crypto.openAES128GCM(sealed, key: key, nonce: nonce, authenticating: [9]) == [1, 2, 3])
        #expect(throws: SystemError.self) { try Crypto.openAES128GCM(sealed, key: key, nonce: nonce) }
        #expect(throws: SystemError.self) { try Crypto.openAES128GCM([1], key: key, nonce: nonce) }
        for index in sealed.indices {
            var changed = sealed
            changed[index] ^= 4
            #expect(throws: SystemError.self) {
                try Crypto.openAES128GCM(changed, key: key, nonce: nonce, authenticating: [9])
            }
        }
    }
}

import PostgresClient
import Store
import Testing
import Wire

@Suite struct AccountTests {
    @Test func `a group is made at once, and each change of its members raises its version`() throws {
        var store = try freshStore()
        let (ann, bob, eve) = (UserID.random(), UserID.random(), UserID.random())
        let chat = ChatID.random()
        #expect(
            try store.first(Accounts.createGroup(chat, title: "t", creator: ann, members: [bob, bob, ann])) == chat)
        #expect(try store.first(Membership.version(of: chat)) == 1)
        let members = try store.rows(Membership.members(of: chat))
        #expect(members == [ann, bob].sorted().map { Membership.Member(user: $0, isAdmin: $0 == ann) })

        try store.run(Accounts.putMember(eve, in: chat, isAdmin: false))
        #expect(try store.first(Membership.version(of: chat)) == 2)
        try store.run(Accounts.putMember(eve, in: chat, isAdmin: false))
        #expect(try store.first(Membership.version(of: chat)) == 2, "nothing changed")
        try store.run(Accounts.putMember(eve, in: chat, isAdmin: true))
        try store.postgres.query("UPDATE members SET muted_until = 'infinity' WHERE user_id = $1", [.id(eve)])
        #expect(try store.first(Membership.version(of: chat)) == 3, "muting is no change of members")
        let standing = try #require(try store.first(Membership.standing(of: eve, in: chat)))
        #expect(standing.isAdmin && !standing.isDirect && standing.metaVersion == 3 && standing.memberCount == 3)
        #expect(standing.readableFromMs > 1_600_000_000_000)
        try store.run(Accounts.removeMember(eve, from: chat))
        #expect(try store.first(Membership.standing(of: eve, in: chat)) == nil)
        #expect(try store.first(Membership.standing(of: eve, in: .random())) == nil)
        #expect(try store.first(Accounts.createGroup(chat, title: "t", creator: eve, members: [])) == nil, "id taken")
        for statement in Accounts.deleteChat(chat) { try store.run(statement) }
        #expect(try store.rows(Membership.members(of: chat)) == [])
    }

    @Test func `a direct chat of two is the same, whoever asks for it`() throws {
        var store = try freshStore()
        let (ann, bob, eve) = (UserID.random(), UserID.random(), UserID.random())
        let chat = try #require(try store.first(Accounts.directChat(.random(), ann, bob)))
        #expect(try store.first(Accounts.directChat(.random(), bob, ann)) == chat)
        #expect(try store.first(Accounts.directChat(.random(), ann, eve)) != chat)
        #expect(try store.rows(Membership.members(of: chat)).map(\.user) == [ann, bob].sorted())
        #expect(try store.first(Membership.standing(of: bob, in: chat))?.isDirect == true)
    }

    @Test func `users are made, renamed, disabled`() throws {
        var store = try freshStore()
        let ann = UserID.random()
        #expect(try store.first(Accounts.putUser(ann, name: "Ann'); DROP TABLE users; --"))?.user == ann)
        #expect(try store.first(Accounts.putUser(ann, name: "Ann"))?.name == "Ann")
        #expect(try store.rows(Accounts.existing([ann, .random()])) == [ann])
        try store.postgres.query("UPDATE users SET disabled = true WHERE user_id = $1", [.id(ann)])
        #expect(try store.first(Accounts.user(ann))?.isDisabled == true)
        #expect(try store.rows(Accounts.existing([ann])) == [])
        #expect(try store.first(Accounts.user(.random())) == nil)
    }

    @Test func `large chats are those with enough members`() throws {
        var store = try freshStore()
        let users = (0..<20).map { _ in UserID.random() }
        let large = try store.group(users)
        _ = try store.group(Array(users.prefix(3)))
        func found(_ asked: [UserID], _ membersMin: Int) throws -> [UserID: [ChatID]] {
            let rows = try store.rows(Membership.largeChats(of: asked, membersMin: membersMin))
            return Dictionary(grouping: rows, by: \.user).mapValues { $0.map(\.chat) }
        }
        #expect(try found([users[0], users[19], .random()], 20) == [users[0]: [large], users[19]: [large]])
        #expect(try found(users, 21).isEmpty)
        #expect(try found([users[0]], 3)[users[0]]?.count == 2)
    }
}

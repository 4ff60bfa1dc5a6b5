<?php
// What a person would do in the browser before the first visit.
define('WP_INSTALLING', true);
require '/srv/blog/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
// There is nobody who could be sent mail.
function wp_new_blog_notification($title, $url, $id, $password) {}
if (!is_blog_installed()) {
    wp_install('A blog of two servers', 'admin', 'admin@example.org', true, '', bin2hex(random_bytes(16)));
}
echo 'the blog is installed', PHP_EOL;
